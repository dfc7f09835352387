"""Kubeflow Trainer's controller: a TrainJob's pods and conditions move as a test's script says.

A script is a generator that gets the job and yields the seconds until it goes on:

    def succeeds(job):
        job.start_pods(2)
        job.log(0, "step 1")
        yield 0.1
        job.complete()
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Generator
from typing import Any

from tests.kubernetes_api.controllers.pods import pod_status, unscheduled, write_status
from tests.kubernetes_api.errors import ApiError
from tests.kubernetes_api.objects import resources
from tests.kubernetes_api.objects.managers import Manager
from tests.kubernetes_api.objects.store import Object
from tests.kubernetes_api.objects.times import now
from tests.kubernetes_api.state import ClusterState

Script = Callable[["JobHandle"], Generator[float, None, None]]
_MANAGER = Manager("trainer-controller", "Update", "trainer.kubeflow.org/v1alpha1")
_STATUS = Manager("trainer-controller", "Update", "trainer.kubeflow.org/v1alpha1", "status")
_POD_MANAGER = Manager("job-controller", "Update", "v1")


class JobHandle:
    """A TrainJob in the hands of a script."""

    def __init__(self, state: ClusterState, job: Object) -> None:
        self.state, self.namespace, self.name = state, job["metadata"]["namespace"], job["metadata"]["name"]

    @property
    def body(self) -> Object:
        """The object as it is now."""
        return self.state.store.get(resources.TRAINJOBS, self.namespace, self.name)

    def start_pods(self, nodes: int | None = None, *, attempt: int = 0) -> None:
        """Makes the running pods of the replicated job `node`, as JobSet names and labels them."""
        job = self.body
        spec = job["spec"].get("trainer", {})
        for index in range(nodes or spec.get("numNodes", 1)):
            pod = self.state.store.create(
                resources.PODS, self.namespace, self._pod(job, index, attempt), manager=_POD_MANAGER
            )
            write_status(self.state, pod, pod_status(pod, "Running", ready=True))
        self.jobs_status(active=1)

    def pods(self) -> list[Object]:
        """Its pods, in the order of their index."""
        found = self.state.store.list(resources.PODS, self.namespace, f"jobset.sigs.k8s.io/jobset-name={self.name}")
        return sorted(found, key=lambda pod: int(pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"]))

    def log(self, index: int, text: str) -> None:
        """Lines that the pod with this index writes."""
        self.state.log(self.namespace, self.pods()[index]["metadata"]["name"], text)

    def end_pods(self, exit_code: int = 0, *, reason: str | None = None) -> None:
        """All pods end."""
        ended: dict[str, Any] = {"exitCode": exit_code, "startedAt": now(), "finishedAt": now()}
        ended["reason"] = reason or ("Error" if exit_code else "Completed")
        for pod in self.pods():
            status = pod_status(pod, "Failed" if exit_code else "Succeeded", terminated=ended)
            write_status(self.state, pod, status)

    def unschedulable(self, message: str = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.") -> None:
        """No node takes the pods."""
        for pod in self.pods():
            write_status(self.state, pod, unscheduled(message))
            self.state.event(pod, "FailedScheduling", message, kind="Warning", source="default-scheduler")

    def delete_pods(self) -> None:
        """As before a restart of all of them."""
        for pod in self.pods():
            self.state.store.delete(resources.PODS, self.namespace, pod["metadata"]["name"])

    def event(self, reason: str, message: str, *, kind: str = "Normal") -> None:
        """An event about the job."""
        self.state.event(self.body, reason, message, kind=kind, source="trainer-controller")

    def condition(self, kind: str, reason: str, message: str = "", *, status: bool = True) -> None:
        """Sets a condition: Suspended, Complete or Failed."""
        entry = {"type": kind, "status": str(status), "reason": reason, "message": message, "lastTransitionTime": now()}

        def changed(live: Object) -> Object:
            current = live.get("status", {})
            kept = [c for c in current.get("conditions", []) if c["type"] != kind]
            return {**live, "status": {**current, "conditions": [*kept, entry]}}

        self.state.store.change(resources.TRAINJOBS, self.namespace, self.name, changed, manager=_STATUS)

    def jobs_status(self, **counts: int) -> None:
        """The counts of the replicated job `node`."""
        names = ("ready", "succeeded", "failed", "active", "suspended")
        entry = {"name": "node"} | {name: counts.get(name, 0) for name in names}

        def changed(live: Object) -> Object:
            return {**live, "status": {**live.get("status", {}), "jobsStatus": [entry]}}

        self.state.store.change(resources.TRAINJOBS, self.namespace, self.name, changed, manager=_STATUS)

    def report(self, status: dict[str, Any]) -> None:
        """What a training process says of itself: `status.trainerStatus`.

        As the status server of Kubeflow Trainer 2.3.0 does (pkg/statusserver/server.go): applied as a whole by the
        manager `trainer-status`, refused by the schema of the custom resource.

        Raises:
            ApiError: 422, for what the schema does not allow.
        """
        if wrong := _wrong_in_status(status):
            raise ApiError(422, wrong)

        def changed(live: Object) -> Object:
            return {**live, "status": {**live.get("status", {}), "trainerStatus": status}}

        manager = Manager("trainer-status", "Apply", "trainer.kubeflow.org/v1alpha1", "status")
        self.state.store.change(resources.TRAINJOBS, self.namespace, self.name, changed, manager=manager)

    def complete(self) -> None:
        """All pods succeed, and so does the job."""
        self.end_pods()
        self.jobs_status(succeeded=1)
        self.condition("Complete", "JobsCompleted", "jobset completed successfully")

    def fail(self, message: str = "jobset failed due to one or more job failures", *, exit_code: int = 1) -> None:
        """All pods fail, and so does the job."""
        self.end_pods(exit_code)
        self.jobs_status(failed=1)
        self.event("JobFailed", message, kind="Warning")
        self.condition("Failed", "JobsFailed", message)

    def _pod(self, job: Object, index: int, attempt: int) -> Object:
        spec = job["spec"].get("trainer", {})
        container = {"name": "node", "image": spec.get("image", "runtime-image:1")}
        container |= {key: spec[key] for key in ("command", "args", "env") if key in spec}
        owner = {"apiVersion": job["apiVersion"], "kind": "TrainJob", "name": self.name, "uid": job["metadata"]["uid"]}
        labels = {
            "jobset.sigs.k8s.io/jobset-name": self.name,
            "jobset.sigs.k8s.io/replicatedjob-name": "node",
            "jobset.sigs.k8s.io/job-index": "0",
            "jobset.sigs.k8s.io/restart-attempt": str(attempt),
            "batch.kubernetes.io/job-name": f"{self.name}-node-0",
            "batch.kubernetes.io/job-completion-index": str(index),
        }
        metadata = {"generateName": f"{self.name}-node-0-{index}-", "labels": labels}
        metadata |= {"ownerReferences": [owner | {"controller": True, "blockOwnerDeletion": True}]}
        pod = {"restartPolicy": "Never", "containers": [container]}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod}


def _wrong_in_status(status: dict[str, Any]) -> str | None:
    """The rules of TrainerStatus in pkg/apis/trainer/v1alpha1/trainjob_types.go of Kubeflow Trainer 2.3.0."""
    if "lastUpdatedTime" not in status:
        return "lastUpdatedTime is required when trainerStatus is present"
    percent, metrics = status.get("progressPercentage", 0), status.get("metrics", [])
    if not isinstance(percent, int) or not 0 <= percent <= 100:
        return f"status.trainerStatus.progressPercentage: Invalid value: {percent}"
    if not isinstance(seconds := status.get("estimatedRemainingSeconds", 0), int) or seconds < 0:
        return f"status.trainerStatus.estimatedRemainingSeconds: Invalid value: {seconds}"
    if len(metrics) > 256:
        return "status.trainerStatus.metrics: Too many: must have at most 256 items"
    texts = [entry[key] for entry in metrics for key in ("name", "value")]
    wrong = [text for text in texts if not isinstance(text, str) or not 1 <= len(text) <= 64]
    return f"status.trainerStatus.metrics: Invalid value: {wrong[0]!r}" if wrong else None


def succeeds(job: JobHandle) -> Generator[float, None, None]:
    """What a TrainJob does unless a test says otherwise."""
    job.start_pods()
    job.log(0, "training")
    yield 0.1
    job.complete()


class TrainerController:
    """Runs the scripts of all TrainJobs."""

    def __init__(self, state: ClusterState) -> None:
        self.state = state
        self._scripts: list[tuple[str, Script]] = []
        self._running: dict[str, tuple[Generator[float, None, None], float]] = {}

    def script(self, name: str, script: Script) -> None:
        """TrainJobs whose name fits the expression follow this script; the last rule wins."""
        self._scripts.insert(0, (name, script))

    def tick(self) -> None:
        """Moves every TrainJob on."""
        alive = set()
        for job in self.state.store.list(resources.TRAINJOBS):
            uid = job["metadata"]["uid"]
            alive.add(uid)
            if job["spec"].get("suspend"):
                continue
            if uid not in self._running:
                script = next(
                    (s for pattern, s in self._scripts if re.search(pattern, job["metadata"]["name"])), succeeds
                )
                self._running[uid] = (script(JobHandle(self.state, job)), 0.0)
            steps, due = self._running[uid]
            if time.monotonic() >= due:
                self._running[uid] = (steps, time.monotonic() + next(steps, 1e9))
        for uid in self._running.keys() - alive:
            del self._running[uid]
