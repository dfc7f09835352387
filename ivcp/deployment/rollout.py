"""A rollout: watched until the new pods serve, and explained when they will not."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from ivcp.deployment.cluster_objects import ClusterObjects
from ivcp.deployment.predictor_manifests import CONTAINER, DEPLOYMENT, Manifest
from ivcp.deployment.smoke_test import DeploymentError

_REVISION = "deployment.kubernetes.io/revision"
_LOOK_SECONDS = 2.0
"""How often the pods are looked at while the Deployment itself does not change."""
_LOG_LINES, _EVENTS = 20, 5
_RESTARTS_THAT_SUFFICE = 2
"""A container that crashed once may have met a passing failure of its storage."""
_HOPELESS = {"ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError"}
"""Reasons of waiting containers that more time does not mend."""


def wait_for_rollout(objects: ClusterObjects, name: str, *, generation: int, timeout_seconds: float) -> Manifest:
    """The Deployment, once all its pods are those of `generation` and serve.

    Raises:
        DeploymentError: the pods cannot start, crash, do not become ready in time, or the Deployment is gone; with the
            reason, the last lines of a pod's log and its events.
        KubernetesError, ConnectionError: the API server refuses, or stays away.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        live = objects.read(DEPLOYMENT, name)
        if live is None:
            raise DeploymentError(f"Deployment {name} was deleted while it was rolled out")
        if is_rolled_out(live, generation):
            return live
        pods = new_pods(objects, live) if _is_observed(live, generation) else []
        if reason := _hopeless(pods):
            raise DeploymentError(f"{name} cannot start: {reason}{_details(objects, pods)}")
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise DeploymentError(
                f"{name} is not ready after serve_timeout_seconds = {timeout_seconds:g}: "
                f"{_why_not_ready(pods)}{_details(objects, pods)}"
            )
        objects.wait_for_change(DEPLOYMENT, live, seconds=min(_LOOK_SECONDS, remaining))


def is_rolled_out(live: Manifest, generation: int) -> bool:
    """Whether every pod is of this generation and available, as `kubectl rollout status` decides it."""
    status, wanted = live.get("status", {}), live["spec"].get("replicas", 1)
    updated: int = status.get("updatedReplicas", 0)
    return bool(
        _is_observed(live, generation)
        and updated >= wanted
        and status.get("replicas", 0) <= updated
        and status.get("availableReplicas", 0) >= updated
    )


def _is_observed(live: Manifest, generation: int) -> bool:
    """Whether the controller knows this generation: until then the newest revision is the one before it."""
    observed: int = live.get("status", {}).get("observedGeneration", 0)
    return observed >= generation


def revision_of(live: Manifest | None) -> int:
    """The number of a Deployment's newest revision, as `kubectl rollout history` has it; 0 where there is none yet."""
    return int((live or {}).get("metadata", {}).get("annotations", {}).get(_REVISION, 0))


def new_pods(objects: ClusterObjects, live: Manifest) -> list[Manifest]:
    """The pods of the newest revision."""
    labels = ",".join(f"{key}={value}" for key, value in live["spec"]["selector"]["matchLabels"].items())
    sets = [rs for rs in objects.matching("ReplicaSet", labels=labels) if _owner(rs) == live["metadata"]["uid"]]
    newest = {rs["metadata"]["uid"] for rs in sets if revision_of(rs) == revision_of(live)}
    return [pod for pod in objects.matching("Pod", labels=labels) if _owner(pod) in newest]


def _owner(body: Manifest) -> str | None:
    references = body["metadata"].get("ownerReferences", [])
    return next((reference["uid"] for reference in references if reference.get("controller")), None)


def _hopeless(pods: Sequence[Manifest]) -> str | None:
    """Why waiting is of no use; null while there is hope."""
    for status in (status for pod in pods for status in _containers(pod)):
        waiting = status.get("state", {}).get("waiting") or {}
        reason = waiting.get("reason")
        if reason in _HOPELESS:
            return f"{reason}: {waiting.get('message', status.get('image', ''))}"
        if reason == "CrashLoopBackOff" and status.get("restartCount", 0) >= _RESTARTS_THAT_SUFFICE:
            return f"{reason}: {_last_end(status)}, {status['restartCount']} restarts"
    return None


def _why_not_ready(pods: Sequence[Manifest]) -> str:
    if not pods:
        return "there is no pod of the new revision: see the events of its ReplicaSet (quota, admission)"
    for pod in pods:
        for condition in pod.get("status", {}).get("conditions", []):
            if condition["type"] == "PodScheduled" and condition["status"] == "False":
                return f"no node takes its pod, {condition.get('reason')}: {condition.get('message')}"
        for status in _containers(pod):
            if waiting := status.get("state", {}).get("waiting"):
                return f"container {status['name']} waits, {waiting.get('reason')}: {waiting.get('message', '')}"
            if not status.get("ready"):
                return f"container {status['name']} runs, but its readiness probe never succeeded"
    return "its pods are ready, but old ones have not ended"


def _details(objects: ClusterObjects, pods: Sequence[Manifest]) -> str:
    """The last lines and the warnings of the first pod that is not ready."""
    pod = next((pod for pod in pods if not _is_ready(pod)), None)
    if pod is None:
        return ""
    name = pod["metadata"]["name"]
    restarts = max((status.get("restartCount", 0) for status in _containers(pod)), default=0)
    tail = objects.log_tail(name, container=CONTAINER, lines=_LOG_LINES, previous=restarts > 0)
    lines = [f"\nthe last lines of pod {name}:", *tail.splitlines()] if tail else []
    events = [e for e in objects.matching("Event", fields=f"involvedObject.name={name}") if e.get("type") == "Warning"]
    if events:
        lines.append(f"{'' if lines else chr(10)}its events:")
        lines += [f"  {event['reason']}: {event.get('message', '')}" for event in events[-_EVENTS:]]
    return "\n".join(lines)


def _is_ready(pod: Manifest) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _containers(pod: Manifest) -> list[dict[str, Any]]:
    status = pod.get("status", {})
    return [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]


def _last_end(status: dict[str, Any]) -> str:
    ended = status.get("lastState", {}).get("terminated") or {}
    return f"exit code {ended.get('exitCode')} ({ended.get('reason')})"
