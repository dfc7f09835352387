"""What the training step asks of the cluster: TrainJobs, their pods, logs and events."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ivcp.kubernetes.api import CALL_SECONDS, KubernetesError, connect, explained, is_unknown_kind, retried
from ivcp.launch.trainjob.manifest import CONTAINER, GROUP, PLURAL, VERSION

T = TypeVar("T")
Object = dict[str, Any]

_PERMISSIONS = "the role pipeline-training of manifests/base"
_JOBSET_LABEL = "jobset.sigs.k8s.io/jobset-name"
_INDEX_LABEL = "batch.kubernetes.io/job-completion-index"


class JobCluster:
    """A namespace with TrainJobs. Every call waits out an API server that is away; see `ivcp.kubernetes.api`."""

    def __init__(self, namespace: str, *, sleep: Callable[[float], None] = time.sleep) -> None:
        """`sleep` is how it waits between two tries; it may raise, which ends the call."""
        from kubernetes import client

        connection = connect()
        self.namespace, self._sleep = namespace, sleep
        self._core = client.CoreV1Api(connection)
        self._custom = client.CustomObjectsApi(connection)

    def job(self, name: str) -> Object | None:
        """The TrainJob; null where there is none."""
        return self._or_none(f"reading the TrainJob {name}", lambda: self._get(GROUP, VERSION, PLURAL, name))

    def runtime(self, name: str) -> Object:
        """The TrainingRuntime.

        Raises:
            KubernetesError: there is none, or it must not be read.
        """
        doing = f"reading the TrainingRuntime {name} in the namespace {self.namespace}"
        found = self._or_none(doing, lambda: self._get(GROUP, VERSION, "trainingruntimes", name))
        if found is None:
            raise KubernetesError(
                f"there is no TrainingRuntime {name} in the namespace {self.namespace}: install Kubeflow Trainer 2.2 "
                "or later and apply manifests/training there, or correct train_runtime and train_namespace"
            )
        return found

    def create(self, job: Object) -> Object:
        """Creates a TrainJob; one of its name that is there already is taken as it is.

        Raises:
            KubernetesError: the API server refuses it.
        """
        name = job["metadata"]["name"]
        from kubernetes.client import ApiException

        def create() -> Object:
            try:
                created: Object = self._custom.create_namespaced_custom_object(
                    GROUP, VERSION, self.namespace, PLURAL, job, field_manager="ivcp", _request_timeout=CALL_SECONDS
                )
                return created
            except ApiException as error:
                if error.status != 409:
                    raise
                return self._get(GROUP, VERSION, PLURAL, name)  # an earlier attempt, or an answer that was lost

        return self._call(f"creating the TrainJob {name} in the namespace {self.namespace}", create)

    def delete(self, name: str, *, patience_seconds: float | None = None) -> None:
        """Deletes a TrainJob and, before it, its pods; one that is gone is no error.

        With `patience_seconds` nothing but these ends the waiting for an API server that is away.
        """

        def delete() -> Any:
            return self._custom.delete_namespaced_custom_object(
                GROUP, VERSION, self.namespace, PLURAL, name,
                propagation_policy="Foreground", _request_timeout=CALL_SECONDS,
            )  # fmt: skip

        self._or_none(f"deleting the TrainJob {name}", delete, patience_seconds=patience_seconds)

    def pods(self, name: str) -> list[Object]:
        """The pods of a TrainJob, by node, the newest of each last; as dicts of JSON."""
        listed = self._call(
            f"listing the pods of {name}",
            lambda: self._core.list_namespaced_pod(
                self.namespace, label_selector=f"{_JOBSET_LABEL}={name}", _request_timeout=CALL_SECONDS
            ),
        )
        pods: list[Object] = [self._core.api_client.sanitize_for_serialization(pod) for pod in listed.items]
        return sorted(pods, key=lambda pod: (node_of(pod), pod["metadata"]["creationTimestamp"]))

    def log(self, pod: str, *, since_seconds: int | None = None, tail_lines: int | None = None) -> str:
        """What a pod has written, a time stamp before each line; empty before it starts and once it is gone."""
        from kubernetes.client import ApiException

        selected = {"since_seconds": since_seconds, "tail_lines": tail_lines}
        try:
            answer = retried(
                lambda: self._core.read_namespaced_pod_log(
                    pod, self.namespace, container=CONTAINER, timestamps=True,
                    _preload_content=False, _request_timeout=CALL_SECONDS,
                    **{key: value for key, value in selected.items() if value is not None},
                ).data,
                sleep=self._sleep,
            )  # fmt: skip
        except ApiException as error:
            if error.status in (400, 404):
                return ""
            raise explained(error, f"reading the log of {pod}", permissions=_PERMISSIONS) from error
        return str(bytes(answer).decode("utf-8", errors="replace"))

    def warnings(self, names: set[str]) -> list[str]:
        """Warning events about the objects of these names, the latest last."""
        listed = self._call(
            "listing events", lambda: self._core.list_namespaced_event(self.namespace, _request_timeout=CALL_SECONDS)
        )
        events = [e for e in listed.items if e.type == "Warning" and e.involved_object.name in names]
        events.sort(key=lambda event: str(event.last_timestamp or event.event_time or ""))
        return [f"{e.involved_object.name}: {e.reason}: {(e.message or '').strip()}" for e in events]

    def queue_message(self, job: Mapping[str, Any]) -> str | None:
        """Kueue's reason why a job waits; null where there is none, or it may not be read."""
        from kubernetes.client import ApiException

        try:
            listed = retried(
                lambda: self._custom.list_namespaced_custom_object(
                    "kueue.x-k8s.io", "v1beta2", self.namespace, "workloads", _request_timeout=CALL_SECONDS
                ),
                sleep=self._sleep,
            )
        except ApiException:
            return None
        uid = job["metadata"]["uid"]
        for workload in listed["items"]:
            if any(owner["uid"] == uid for owner in workload["metadata"].get("ownerReferences", [])):
                conditions = workload.get("status", {}).get("conditions", [])
                waiting = [c["message"] for c in conditions if c["status"] == "False" and c.get("message")]
                return waiting[-1] if waiting else None
        return None

    def _get(self, group: str, version: str, plural: str, name: str) -> Object:
        found: Object = self._custom.get_namespaced_custom_object(
            group, version, self.namespace, plural, name, _request_timeout=CALL_SECONDS
        )
        return found

    def _call(self, doing: str, call: Callable[[], T]) -> T:
        from kubernetes.client import ApiException

        try:
            return retried(call, sleep=self._sleep)
        except ApiException as error:
            raise explained(error, doing, permissions=_PERMISSIONS) from error

    def _or_none(self, doing: str, call: Callable[[], T], *, patience_seconds: float | None = None) -> T | None:
        from kubernetes.client import ApiException

        try:
            if patience_seconds is None:
                return retried(call, sleep=self._sleep)
            return retried(call, patience_seconds=patience_seconds)
        except ApiException as error:
            if error.status == 404 and not is_unknown_kind(error):
                return None
            raise explained(error, doing, permissions=_PERMISSIONS) from error


def node_of(pod: Mapping[str, Any]) -> int:
    """The node's number that a pod is."""
    return int(pod["metadata"].get("labels", {}).get(_INDEX_LABEL, 0))
