"""The kubelet and the scheduler: pods get the status that their behaviour says."""

from __future__ import annotations

import re
import time
from typing import Any

from tests.kubernetes_api.controllers.behaviours import BadImage, Behaviour, CrashLoop, NeverReady, Ready, Unschedulable
from tests.kubernetes_api.objects import resources
from tests.kubernetes_api.objects.managers import Manager
from tests.kubernetes_api.objects.store import Object
from tests.kubernetes_api.objects.times import now
from tests.kubernetes_api.state import ClusterState

_KUBELET = Manager("kubelet", "Update", "v1", "status")


class Kubelet:
    """Moves pods that a controller owns."""

    def __init__(self, state: ClusterState) -> None:
        self.state = state
        self._behaviours: list[tuple[str, str, Behaviour]] = []
        self._started: dict[str, float] = {}

    def behave(self, image: str, behaviour: Behaviour, *, pod: str = "") -> None:
        """Containers whose image, or an environment value, fits the expression behave so; the last rule wins.

        `pod` is an expression for the names of the pods.
        """
        self._behaviours.insert(0, (image, pod, behaviour))

    def behaviour_of(self, pod: Object) -> Behaviour:
        """By its first container; unless a test says otherwise it becomes ready."""
        container = pod["spec"]["containers"][0]
        texts = [container.get("image", ""), *(env.get("value", "") for env in container.get("env", []))]
        for pattern, name, behaviour in self._behaviours:
            if re.search(name, pod["metadata"]["name"]) and any(re.search(pattern, text) for text in texts):
                return behaviour
        return Ready()

    def tick(self) -> None:
        """Moves every pod that a ReplicaSet owns on."""
        for pod in self.state.store.list(resources.PODS):
            owners = pod["metadata"].get("ownerReferences", [])
            if any(owner["kind"] == "ReplicaSet" for owner in owners):
                self._move(pod)

    def _move(self, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        age = time.monotonic() - self._started.setdefault(uid, time.monotonic())
        behaviour, before = self.behaviour_of(pod), pod.get("status", {})
        match behaviour:
            case Ready():
                status = self._ready(pod, behaviour, age)
            case BadImage():
                reason = "ErrImagePull" if age < 0.05 else "ImagePullBackOff"
                message = f'Back-off pulling image "{pod["spec"]["containers"][0]["image"]}": {behaviour.message}'
                status = pod_status(pod, "Pending", waiting={"reason": reason, "message": message})
                self._tell(pod, before, status, "Failed", f"Failed to pull image: {behaviour.message}")
            case CrashLoop():
                status = self._crash(pod, behaviour, age)
            case NeverReady():
                status = pod_status(pod, "Running", ready=False)
                if not self.state.logs.get(_key(pod)):
                    self.state.log(*_key(pod), "predictor: loading the model")
                self._tell(pod, before, status, "Unhealthy", behaviour.message)
            case Unschedulable():
                status = unscheduled(behaviour.message)
                self._tell(pod, before, status, "FailedScheduling", behaviour.message, source="default-scheduler")
        write_status(self.state, pod, status)

    def _ready(self, pod: Object, behaviour: Ready, age: float) -> dict[str, Any]:
        if age < behaviour.after_seconds / 2:
            return pod_status(pod, "Pending", waiting={"reason": "ContainerCreating"})
        if not self.state.logs.get(_key(pod)):
            self.state.log(*_key(pod), behaviour.log)
        if behaviour.url:
            self.state.backends[pod["metadata"]["uid"]] = behaviour.url
        return pod_status(pod, "Running", ready=age >= behaviour.after_seconds)

    def _crash(self, pod: Object, behaviour: CrashLoop, age: float) -> dict[str, Any]:
        restarts = int(age / behaviour.every_seconds)
        before = next(iter(pod.get("status", {}).get("containerStatuses", [])), {}).get("restartCount", -1)
        if restarts > before:
            self.state.logs[_key(pod)] = []
            self.state.log(*_key(pod), behaviour.log)
            self.state.previous_logs[_key(pod)] = self.state.logs[_key(pod)]
            self.state.event(pod, "BackOff", "Back-off restarting failed container", kind="Warning")
        waiting = {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container"}
        ended = {"exitCode": behaviour.exit_code, "reason": "Error", "startedAt": now(), "finishedAt": now()}
        return pod_status(pod, "Running", waiting=waiting, restarts=restarts, terminated=ended)

    def _tell(self, pod: Object, before: Any, status: Any, reason: str, message: str, source: str = "kubelet") -> None:
        if before.get("containerStatuses") != status.get("containerStatuses") or not before:
            self.state.event(pod, reason, message, kind="Warning", source=source)


def pod_status(
    pod: Object,
    phase: str,
    *,
    ready: bool = False,
    waiting: dict[str, str] | None = None,
    restarts: int = 0,
    terminated: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The status of a pod whose containers are all in the same state; `terminated` beside `waiting` is the last one."""
    if waiting is not None:
        state: dict[str, Any] = {"waiting": waiting}
    elif terminated is not None:
        state = {"terminated": terminated}
    else:
        state = {"running": {"startedAt": pod["metadata"]["creationTimestamp"]}}
    last = {"lastState": {"terminated": terminated}} if waiting is not None and terminated is not None else {}
    containers = [
        {
            "name": c["name"],
            "image": c["image"],
            "imageID": "",
            "ready": ready,
            "started": ready,
            "restartCount": restarts,
            "state": state,
        }
        | last
        for c in pod["spec"]["containers"]
    ]
    kinds = {"PodScheduled": True, "Initialized": True, "ContainersReady": ready, "Ready": ready}
    conditions = [{"type": kind, "status": str(value)} for kind, value in kinds.items()]
    return {"phase": phase, "conditions": conditions, "containerStatuses": containers}


def unscheduled(message: str) -> dict[str, Any]:
    """The status of a pod that no node takes."""
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return {"phase": "Pending", "conditions": [condition]}


def write_status(state: ClusterState, pod: Object, status: dict[str, Any]) -> None:
    """Writes a pod's status as the kubelet does."""
    metadata = pod["metadata"]
    if pod.get("status") != status:
        state.store.change(
            resources.PODS,
            metadata["namespace"],
            metadata["name"],
            lambda live: {**live, "status": status},
            manager=_KUBELET,
        )


def _key(pod: Object) -> tuple[str, str]:
    return pod["metadata"]["namespace"], pod["metadata"]["name"]
