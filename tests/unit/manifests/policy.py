"""The rules that manifests keep; each gives the places where objects break it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import yaml
from kubernetes.utils import parse_quantity

from tests.unit.manifests.rendered import MANIFESTS, Object, Pod, of_kind, pods, title

Rule = Callable[[list[Object]], list[str]]

_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
    "image",  # since Kubernetes 1.33
}  # fmt: skip
_HOST = ("hostNetwork", "hostPID", "hostIPC")
_PROBES = {"startupProbe", "livenessProbe", "readinessProbe"}


def runs_restricted(objects: list[Object]) -> list[str]:
    """Pod Security Standards, level "restricted", said explicitly rather than left to defaults.

    https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
    """
    return [f"{pod.owner}: {problem}" for pod in pods(objects) for problem in _not_restricted(pod)]


def _not_restricted(pod: Pod) -> Iterator[str]:
    own = pod.spec.get("securityContext", {})
    if own.get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield "seccompProfile is not RuntimeDefault"
    yield from (key for key in _HOST if pod.spec.get(key))
    for volume in pod.spec.get("volumes", []):
        if not (set(volume) - {"name"}) <= _VOLUMES:
            yield f"volume {volume['name']} is of a forbidden type"
    for container in pod.containers:
        name, context = container["name"], container.get("securityContext", {})
        if not context.get("runAsNonRoot") or not isinstance(context.get("runAsUser"), int) or not context["runAsUser"]:
            yield f"{name} may run as root"
        if context.get("allowPrivilegeEscalation") is not False or context.get("privileged"):
            yield f"{name} may gain privileges"
        if context.get("capabilities") != {"drop": ["ALL"]}:
            yield f"{name} keeps capabilities"
        yield from (f"{name} takes a port of the node" for port in container.get("ports", []) if "hostPort" in port)


def has_a_read_only_root(objects: list[Object]) -> list[str]:
    """Nothing is written but to volumes; /tmp is one."""
    found = []
    for pod in pods(objects):
        for container in pod.containers:
            paths = {mount["mountPath"] for mount in container.get("volumeMounts", [])}
            if not container.get("securityContext", {}).get("readOnlyRootFilesystem") or "/tmp" not in paths:
                found.append(f"{pod.owner}: {container['name']} has a writable root or no /tmp")
    return found


def has_limits(objects: list[Object]) -> list[str]:
    """Requests and limits of processor, memory and disk; what volumes in memory and on disk may take is within them."""
    return [f"{pod.owner}: {problem}" for pod in pods(objects) for problem in _without_limits(pod)]


def _without_limits(pod: Pod) -> Iterator[str]:
    sizes: dict[str, Any] = {"disk": 0, "Memory": 0}
    for volume in pod.spec.get("volumes", []):
        if "emptyDir" in volume:
            if "sizeLimit" not in volume["emptyDir"]:
                yield f"volume {volume['name']} has no sizeLimit"
            else:
                medium = volume["emptyDir"].get("medium", "disk")
                sizes[medium] += parse_quantity(volume["emptyDir"]["sizeLimit"])
    for container in pod.containers:
        name, resources = container["name"], container.get("resources", {})
        missing = [
            f"{name} has no {resource} in its {part}"
            for part in ("requests", "limits")
            for resource in ("cpu", "memory", "ephemeral-storage")
            if resource not in resources.get(part, {})
        ]
        yield from missing
        if missing:
            continue
        limits = {key: parse_quantity(value) for key, value in resources["limits"].items()}
        if any(parse_quantity(value) > limits[key] for key, value in resources["requests"].items()):
            yield f"{name} asks for more than its limits"
        if limits["ephemeral-storage"] < sizes["disk"]:
            yield f"{name} is evicted before its volumes are full"
        if limits["memory"] < 2 * sizes["Memory"]:
            yield f"{name} leaves less than half of its memory beside /dev/shm"


def pins_images(objects: list[Object]) -> list[str]:
    """A version or a digest; never `latest`."""
    pinned = re.compile(r"(@sha256:[0-9a-f]{64}|:(?!latest)[A-Za-z0-9_][\w.-]*)$")
    images = [(pod.owner, container["image"]) for pod in pods(objects) for container in pod.containers]
    return [f"{owner}: {image}" for owner, image in images if not pinned.search(image)]


def has_probes(objects: list[Object]) -> list[str]:
    """Servers tell when they started, are ready, and hang; a training job just ends."""
    return [
        f"{pod.owner}: {container['name']} lacks {', '.join(sorted(_PROBES - set(container)))}"
        for pod in pods(objects)
        if pod.kind != "TrainingRuntime"
        for container in pod.spec["containers"]
        if not set(container) >= _PROBES
    ]


def has_no_token(objects: list[Object]) -> list[str]:
    """No pod gets the API server's token: none asks it for anything."""
    return [pod.owner for pod in pods(objects) if pod.spec.get("automountServiceAccountToken") is not False]


def documents_secrets(objects: list[Object]) -> list[str]:
    """Secrets and keys that are read stand in the examples; no secret is part of the manifests themselves."""
    examples = {item["metadata"]["name"]: set(item["stringData"]) for item in example_secrets()}
    found = [f"{title(item)} is in the manifests" for item in of_kind(objects, "Secret")]
    for owner, name, key in secret_references(objects):
        if name not in examples or (key and key not in examples[name]):
            found.append(f"{owner}: the secret {name} {key or ''} is not in secrets.example.yaml")
    return found


def example_secrets() -> list[Object]:
    return list(yaml.safe_load_all((MANIFESTS / "base" / "secrets.example.yaml").read_text(encoding="utf-8")))


def secret_references(objects: list[Object]) -> Iterator[tuple[str, str, str | None]]:
    """Who reads which secret, and which key of it."""
    for ingress in of_kind(objects, "Ingress"):
        yield from ((title(ingress), tls["secretName"], None) for tls in ingress["spec"].get("tls", []))
    for pod in pods(objects):
        for container in pod.containers:
            for source in container.get("envFrom", []):
                if "secretRef" in source:
                    yield pod.owner, source["secretRef"]["name"], None
            for variable in container.get("env", []):
                if key := variable.get("valueFrom", {}).get("secretKeyRef"):
                    yield pod.owner, key["name"], key["key"]
        for volume in pod.spec.get("volumes", []):
            if "secret" in volume:
                yield pod.owner, volume["secret"]["secretName"], None
        yield from ((pod.owner, pull["name"], None) for pull in pod.spec.get("imagePullSecrets", []))
