"""The predictor's objects on a Kubernetes cluster: read, applied server-side with an own field manager, removed."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from ivcp.deployment.predictor_manifests import Manifest
from ivcp.kubernetes import api
from ivcp.kubernetes.api import KubernetesError, Termination, undisturbed
from ivcp.kubernetes.lease import Lease

T = TypeVar("T")

FIELD_MANAGER = "ivcp"
TERMINATED_SECONDS = 20.0
"""For cleaning up after SIGTERM: the step's own pod has to end within 30 s."""
_PATHS = {
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "Service": "/api/v1/namespaces/{}/services",
    "HorizontalPodAutoscaler": "/apis/autoscaling/v2/namespaces/{}/horizontalpodautoscalers",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "ReplicaSet": "/apis/apps/v1/namespaces/{}/replicasets",
    "Pod": "/api/v1/namespaces/{}/pods",
    "Event": "/api/v1/namespaces/{}/events",
}
_CONTENT = {"PATCH": "application/apply-patch+yaml", "DELETE": "application/json"}
_PAUSE_SECONDS = 1.0
PERMISSIONS = "the role `pipeline-serving` of manifests/base"

log = logging.getLogger(__name__)


class FieldConflictError(KubernetesError):
    """Somebody else owns fields that have to change."""


class ModifiedError(KubernetesError):
    """The object is another version than the one that was to be changed."""


class ClusterObjects:
    """The objects of one namespace; every call outlives a restart of the API server, as long as `patience_seconds`."""

    def __init__(
        self,
        client: Any,
        namespace: str,
        *,
        patience_seconds: float,
        lease: Lease | None = None,
        termination: Termination | None = None,
    ) -> None:
        """`client` is a `kubernetes.client.ApiClient`; without the `lease`, where one is given, nothing is written.

        `termination` ends waits.
        """
        self.client, self.namespace, self.patience_seconds = client, namespace, patience_seconds
        self._lease, self._termination = lease, termination or Termination()

    @contextmanager
    def cleaning_up(self, *, patience_seconds: float) -> Iterator[None]:
        """Inside, no SIGTERM ends a call, and an API server that is away is waited for as long as this."""
        before = self.patience_seconds, self._termination
        self.patience_seconds, self._termination = patience_seconds, Termination()
        try:
            with undisturbed():
                yield
        finally:
            self.patience_seconds, self._termination = before

    def read(self, kind: str, name: str) -> Manifest | None:
        """An object; null where there is none.

        Raises:
            KubernetesError: the server refuses.
        """
        from kubernetes.client import ApiException

        try:
            found: Manifest = self._call("GET", kind, name)
            return found
        except ApiException as error:
            if error.status == 404 and "namespaces" not in api.message_of(error):
                return None
            raise api.explained(error, f"reading {kind} {name}", permissions=PERMISSIONS) from error

    def matching(self, kind: str, *, labels: str = "", fields: str = "") -> list[Manifest]:
        """The objects of a kind that fit both selectors.

        Raises:
            KubernetesError: the server refuses.
        """
        selectors = [(key, text) for key, text in (("labelSelector", labels), ("fieldSelector", fields)) if text]
        found = self._explained(f"listing {kind}s", lambda: self._call("GET", kind, query=selectors))
        items: list[Manifest] = found["items"]
        return items

    def apply(self, manifest: Manifest, *, take_over: bool = False, dry_run: bool = False) -> Manifest:
        """Server-side apply: what `ivcp` applied before and is not in `manifest` goes, other managers' fields stay.

        A `resourceVersion` in `manifest` is the version that is changed, and no other.

        Raises:
            ModifiedError: it is another version now.
            FieldConflictError: another manager owns a field whose value would change; the message names both.
            LeaseLostError: another deployment took over.
            KubernetesError: the server refuses for another reason.
        """
        from kubernetes.client import ApiException

        if not dry_run:
            self._check_lease()
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        query = [("fieldManager", FIELD_MANAGER), ("force", str(take_over).lower())]
        query += [("dryRun", "All")] if dry_run else []
        began = time.monotonic()
        while True:
            try:
                applied: Manifest = self._call("PATCH", kind, name, query=query, body=manifest)
                return applied
            except ApiException as error:
                if error.status == 409 and _is_about_fields(error):
                    raise FieldConflictError(_conflict(error, kind, name)) from error
                if error.status == 409 and "resourceVersion" in manifest["metadata"]:
                    raise ModifiedError(f"{kind} {name}: {api.message_of(error)}") from error
                if error.status != 409 or time.monotonic() - began > self.patience_seconds:
                    raise api.explained(error, f"applying {kind} {name}", permissions=PERMISSIONS) from error
            self._termination.sleep(_PAUSE_SECONDS)  # a quota, or the object, was written at the same time

    def delete(self, kind: str, name: str, *, uid: str | None = None) -> None:
        """Removes an object and what it made; one that is not there, or has another `uid`, is no error.

        Raises:
            LeaseLostError: another deployment took over.
            KubernetesError: the server refuses.
        """
        from kubernetes.client import ApiException

        self._check_lease()
        body = {"preconditions": {"uid": uid}} if uid else None
        try:
            self._call("DELETE", kind, name, query=[("propagationPolicy", "Background")], body=body)
        except ApiException as error:
            if error.status == 409 and uid:
                log.warning("%s %s is another one now than was to be removed: it is left as it is", kind, name)
            elif error.status != 404:
                raise api.explained(error, f"deleting {kind} {name}", permissions=PERMISSIONS) from error

    def log_tail(self, pod: str, *, container: str, lines: int, previous: bool) -> str:
        """The last lines of a container; empty where it has not written any, or they cannot be read."""
        from kubernetes.client import ApiException

        query = [("container", container), ("tailLines", str(lines)), ("previous", str(previous).lower())]
        try:
            return str(self._call("GET", "Pod", f"{pod}/log", query=query, response_type="str"))
        except ApiException as error:
            return "" if error.status in (400, 404) else f"(the log cannot be read: {api.message_of(error)})"

    def wait_for_change(self, kind: str, live: Manifest, *, seconds: float) -> None:
        """Returns when the object changed since `live`, the connection broke off, or `seconds` passed.

        Raises:
            Terminated: SIGTERM came.
        """
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        self._termination.check()
        metadata = live["metadata"]
        query = [
            ("watch", "true"),
            ("fieldSelector", f"metadata.name={metadata['name']}"),
            ("resourceVersion", metadata["resourceVersion"]),
            ("timeoutSeconds", str(max(1, round(seconds)))),
        ]
        try:
            for line in self._stream(kind, query, seconds=seconds):
                if json.loads(line)["type"] != "BOOKMARK":
                    return  # also for 410 Gone: the object is read again
        except (ApiException, HTTPError, OSError, ValueError) as error:
            log.debug("the watch on %s %s broke off: %s", kind, metadata["name"], error)
            self._termination.sleep(min(_PAUSE_SECONDS, seconds))

    def _check_lease(self) -> None:
        if self._lease is not None:
            self._lease.check(patience_seconds=self.patience_seconds)

    def _stream(self, kind: str, query: list[tuple[str, str]], *, seconds: float) -> Iterator[bytes]:
        reply = self._request(
            "GET", _PATHS[kind].format(self.namespace), query, timeout=(5.0, seconds + 5), stream=True
        )
        try:
            yield from reply
        finally:
            reply.release_conn()

    def _explained(self, doing: str, call: Callable[[], T]) -> T:
        from kubernetes.client import ApiException

        try:
            return call()
        except ApiException as error:
            raise api.explained(error, doing, permissions=PERMISSIONS) from error

    def _call(
        self,
        method: str,
        kind: str,
        name: str = "",
        *,
        query: list[tuple[str, str]] | None = None,
        body: Manifest | None = None,
        response_type: str = "object",
    ) -> Any:
        path = _PATHS[kind].format(self.namespace) + (f"/{name}" if name else "")
        return api.retried(
            lambda: self._request(method, path, query or [], body=body, response_type=response_type),
            patience_seconds=self.patience_seconds,
            sleep=self._termination.sleep,
        )

    def _request(
        self,
        method: str,
        path: str,
        query: list[tuple[str, str]],
        *,
        body: Manifest | None = None,
        response_type: str = "object",
        timeout: tuple[float, float] = api.CALL_SECONDS,
        stream: bool = False,
    ) -> Any:
        return self.client.call_api(
            path,
            method,
            query_params=query,
            header_params={"Accept": "application/json, */*"} | ({"Content-Type": _CONTENT[method]} if body else {}),
            body=body,
            response_type=response_type,
            auth_settings=["BearerToken"],
            _return_http_data_only=True,
            _preload_content=not stream,
            _request_timeout=timeout,
        )


def _is_about_fields(error: Any) -> bool:
    """Whether a 409 says that another manager owns fields: two writers at once are a conflict too."""
    try:
        causes = json.loads(error.body)["details"]["causes"]
    except (TypeError, ValueError, KeyError):
        return False
    return any(cause.get("reason") == "FieldManagerConflict" for cause in causes)


def _conflict(error: Any, kind: str, name: str) -> str:
    return (
        f"{kind} {name} was changed by another field manager: {api.message_of(error)}. Undo that change, or set "
        "serve_take_over: true once to overwrite it"
    )
