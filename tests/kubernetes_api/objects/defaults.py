"""What the server fills in, and what it refuses beyond the schema."""

from __future__ import annotations

import re
from typing import Any

from tests.kubernetes_api.errors import ApiError
from tests.kubernetes_api.objects.selectors import expression, labels_match

_WORKLOADS = ("Deployment", "ReplicaSet", "StatefulSet")
_MICRO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d\d:\d\d)")
"""Go's layout `2006-01-02T15:04:05.000000Z07:00`: six digits, no fewer."""


def fill_in(body: dict[str, Any], *, cluster_ip: str) -> None:
    """Sets the defaults that clients and kubectl rely on."""
    kind, spec = body["kind"], body.get("spec", {})
    if kind in _WORKLOADS:
        spec.setdefault("replicas", 1)
        _fill_in_pod(spec["template"]["spec"])
    if kind == "Deployment":
        spec.setdefault("progressDeadlineSeconds", 600)
        spec.setdefault("revisionHistoryLimit", 10)
        strategy = spec.setdefault("strategy", {})
        if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
            rolling = strategy.setdefault("rollingUpdate", {})
            rolling.setdefault("maxSurge", "25%")
            rolling.setdefault("maxUnavailable", "25%")
    if kind == "Pod":
        _fill_in_pod(spec)
    if kind == "Service":
        spec.setdefault("type", "ClusterIP")
        spec.setdefault("clusterIP", cluster_ip)
        spec.setdefault("clusterIPs", [spec["clusterIP"]])
        spec.setdefault("sessionAffinity", "None")
        for port in spec.get("ports", []):
            port.setdefault("protocol", "TCP")
            port.setdefault("targetPort", port["port"])
    if kind == "Namespace":
        body.setdefault("status", {}).setdefault("phase", "Active")


def _fill_in_pod(spec: dict[str, Any]) -> None:
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("schedulerName", "default-scheduler")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("securityContext", {})
    for container in (*spec.get("containers", []), *spec.get("initContainers", [])):
        container.setdefault("terminationMessagePath", "/dev/termination-log")
        container.setdefault("terminationMessagePolicy", "File")
        latest = ":" not in container.get("image", "").rpartition("/")[2]
        container.setdefault("imagePullPolicy", "Always" if latest else "IfNotPresent")
        for port in container.get("ports", []):
            port.setdefault("protocol", "TCP")
        for probe in filter(None, (container.get(f"{name}Probe") for name in ("liveness", "readiness", "startup"))):
            for key, value in (("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1)):
                probe.setdefault(key, value)
            probe.setdefault("failureThreshold", 3)


def check(live: dict[str, Any] | None, body: dict[str, Any]) -> None:
    """Raises:
    ApiError: 422, for a selector that changed or that does not fit its template, or another runtime of a TrainJob.
        400 or 422, for a lease whose times or numbers the real server does not take.
    """
    kind, name = body["kind"], body["metadata"]["name"]
    if kind in _WORKLOADS:
        labels = body["spec"]["template"].get("metadata", {}).get("labels", {})
        if not labels_match(expression(body["spec"]["selector"]), labels):
            raise ApiError(422, f'{kind} "{name}" is invalid: `selector` does not match template `labels`')
        if live and live["spec"]["selector"] != body["spec"]["selector"]:
            raise ApiError(422, f'{kind} "{name}" is invalid: spec.selector: field is immutable')
    if kind == "Deployment" and body["spec"].get("minReadySeconds", 0) >= body["spec"]["progressDeadlineSeconds"]:
        raise ApiError(422, f'Deployment "{name}" is invalid: progressDeadlineSeconds must exceed minReadySeconds')
    if kind == "TrainJob" and live and live["spec"]["runtimeRef"] != body["spec"]["runtimeRef"]:
        raise ApiError(422, f'TrainJob "{name}" is invalid: spec.runtimeRef: field is immutable')
    if kind == "Lease":
        _check_lease(body.get("spec", {}), name)


def _check_lease(spec: dict[str, Any], name: str) -> None:
    for key in ("acquireTime", "renewTime"):
        if key in spec and not _MICRO_TIME.fullmatch(spec[key]):
            raise ApiError(400, f'parsing time "{spec[key]}" as "2006-01-02T15:04:05.000000Z07:00": cannot parse')
    if spec.get("leaseDurationSeconds", 1) <= 0:
        raise ApiError(422, f'Lease "{name}" is invalid: spec.leaseDurationSeconds: must be greater than 0')
    if spec.get("leaseTransitions", 0) < 0:
        raise ApiError(422, f'Lease "{name}" is invalid: spec.leaseTransitions: must be greater than or equal to 0')
