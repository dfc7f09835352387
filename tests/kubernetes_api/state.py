"""Everything that stays when the server restarts."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tests.kubernetes_api.errors import ApiError
from tests.kubernetes_api.faults import Faults
from tests.kubernetes_api.objects import resources
from tests.kubernetes_api.objects.managers import Manager
from tests.kubernetes_api.objects.store import Object, Store
from tests.kubernetes_api.objects.times import now


@dataclass(frozen=True)
class LogLine:
    """A line that a container wrote."""

    time: datetime
    text: str


@dataclass
class ClusterState:
    """Objects, logs, and which processes stand behind pods."""

    store: Store = field(default_factory=Store)
    faults: Faults = field(default_factory=Faults)
    logs: dict[tuple[str, str], list[LogLine]] = field(default_factory=dict)
    """Of each pod, by namespace and name."""
    previous_logs: dict[tuple[str, str], list[LogLine]] = field(default_factory=dict)
    """Of the container that ran before the last restart."""
    backends: dict[str, str] = field(default_factory=dict)
    """Address of the real process behind a pod, by its uid."""
    controller_lag_seconds: float = 0.0
    """For the controller of Deployments to see a new generation."""
    generations: dict[tuple[str, int], float] = field(default_factory=dict)
    """When each generation of a Deployment, by its uid, was first there."""
    stopping: threading.Event = field(default_factory=threading.Event)
    """Set while the HTTP server goes down: streams end."""

    def log(self, namespace: str, pod: str, text: str) -> None:
        """Appends lines to a pod's log."""
        lines = [LogLine(datetime.now(UTC), line) for line in text.splitlines()]
        with self.store.lock:
            self.logs.setdefault((namespace, pod), []).extend(lines)

    def event(self, about: Object, reason: str, message: str, *, kind: str = "Normal", source: str = "kubelet") -> None:
        """Records an event about an object; the same again raises its count."""
        metadata = about["metadata"]
        namespace = metadata["namespace"]
        uid = metadata["uid"]
        involved = {
            "apiVersion": about["apiVersion"],
            "kind": about["kind"],
            "namespace": namespace,
            "name": metadata["name"],
            "uid": uid,
        }
        manager = Manager(source, "Update", "v1")
        for event in self.store.list(resources.EVENTS, namespace):
            same = (event["involvedObject"]["uid"], event["reason"], event["message"]) == (uid, reason, message)
            if same:
                changed = {"count": event["count"] + 1, "lastTimestamp": now()}
                name = event["metadata"]["name"]
                self.store.change(resources.EVENTS, namespace, name, lambda e, c=changed: e | c, manager=manager)  # type: ignore[misc]
                return
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{metadata['name']}."},
            "involvedObject": involved,
            "reason": reason,
            "message": message,
            "type": kind,
            "count": 1,
            "firstTimestamp": now(),
            "lastTimestamp": now(),
            "source": {"component": source},
            "reportingComponent": source,
            "reportingInstance": source,
        }
        self.store.create(resources.EVENTS, namespace, body, manager=manager)

    def service_backends(self, namespace: str, name: str) -> list[str]:
        """Addresses of the ready pods behind a Service.

        Raises:
            ApiError: 404 without the service, 503 without a ready pod.
        """
        service = self.store.get(resources.SERVICES, namespace, name)
        selector = ",".join(f"{key}={value}" for key, value in service["spec"].get("selector", {}).items())
        ready = [pod for pod in self.store.list(resources.PODS, namespace, selector) if is_ready(pod)]
        found = [self.backends[pod["metadata"]["uid"]] for pod in ready if pod["metadata"]["uid"] in self.backends]
        if not found:
            raise ApiError(503, f'no endpoints available for service "{name}"')
        return found


def is_ready(pod: Object) -> bool:
    """Whether its Ready condition is True."""
    conditions = pod.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
