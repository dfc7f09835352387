"""What a pod of a training job is doing, in words: why it waits, how it ended, what it wrote."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ivcp.launch.trainjob.api import JobCluster

_NEVER_STARTS = {
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "CreateContainerConfigError",
    "CreateContainerError",
}
"""Reasons for which a container waits without ever failing."""
_OVERLAP_SECONDS = 10


@dataclass(frozen=True)
class Ended:
    """How a pod's container ended."""

    pod: str
    exit_code: int
    reason: str
    """Kubernetes' word: Error, OOMKilled, Evicted, …"""
    message: str
    """What the container left as its reason."""
    finished_at: str


def why_waiting(pod: Mapping[str, Any]) -> str | None:
    """Why a pod has not started; null where it has."""
    status, name = pod.get("status", {}), pod["metadata"]["name"]
    for container in status.get("containerStatuses", []):
        if waiting := container.get("state", {}).get("waiting"):
            return f"{name}: {waiting.get('reason', 'waiting')} {waiting.get('message', '')}".strip()
    for condition in status.get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"{name}: {condition.get('reason', '')}: {condition.get('message', '')}"
    return None


def never_starts(pod: Mapping[str, Any]) -> bool:
    """Whether its container waits for something that only a person can change."""
    states = [container.get("state", {}) for container in pod.get("status", {}).get("containerStatuses", [])]
    return any(state.get("waiting", {}).get("reason") in _NEVER_STARTS for state in states)


def how_ended(pod: Mapping[str, Any]) -> Ended | None:
    """How a pod ended that failed; null where it runs or succeeded."""
    status, name = pod.get("status", {}), pod["metadata"]["name"]
    for container in status.get("containerStatuses", []):
        ended = container.get("state", {}).get("terminated")
        if ended and ended["exitCode"] != 0:
            words = (ended.get("reason", ""), ended.get("message", ""), str(ended.get("finishedAt", "")))
            return Ended(name, ended["exitCode"], *words)
    if status.get("phase") == "Failed":  # evicted, or its node went away
        return Ended(name, -1, status.get("reason", "Failed"), status.get("message", ""), "")
    return None


class PodLog:
    """The lines of one node's pods, each once, however often the log is asked for and whatever interrupts it."""

    def __init__(self, cluster: JobCluster, write: Callable[[str], None]) -> None:
        self._cluster, self._write = cluster, write
        self._pod, self._last, self._at_last, self._asked = "", "", 0, 0.0

    def poll(self, pod: str) -> None:
        """Writes what is new in a pod's log."""
        if pod != self._pod:
            self._pod, self._last, self._at_last, self._asked = pod, "", 0, 0.0
        now = time.monotonic()
        since = int(now - self._asked) + _OVERLAP_SECONDS if self._last else None
        known, repeated = self._last, self._at_last
        for line in self._cluster.log(pod, since_seconds=since).splitlines():
            stamp, _, text = line.partition(" ")
            moment = _sortable(stamp)
            if moment < known:
                continue
            if moment == known and repeated:
                repeated -= 1
                continue
            self._at_last = self._at_last + 1 if moment == self._last else 1
            self._last = moment
            self._write(text)
        self._asked = now


def _sortable(stamp: str) -> str:
    """RFC 3339 with nanoseconds, whose trailing zeros the kubelet leaves out."""
    seconds, _, fraction = stamp.rstrip("Z").partition(".")
    return f"{seconds}.{fraction:0<9}"
