"""A lease: one process at a time does something on a cluster, and a process that died keeps nobody waiting for long.

The object is `coordination.k8s.io/v1` Lease, used as client-go's leader election uses it. Each write names the version
that it replaces, so that of two writers one gets 409. Clocks of two machines are not compared: a lease has expired for
whoever saw it unchanged for its duration.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from ivcp.kubernetes import api
from ivcp.kubernetes.api import KubernetesError

_RENEWALS_PER_DURATION = 3
_LOOK_SECONDS = 1.0

log = logging.getLogger(__name__)


class LeaseLostError(KubernetesError):
    """Another process holds the lease now: what it protects must not be touched any more."""


class Lease:
    """A lease that this process holds, and renews until it is given back; see `held_lease`."""

    def __init__(self, client: Any, namespace: str, name: str, *, permissions: str, duration_seconds: int) -> None:
        self.holder = f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}"
        self.name = name
        self._client, self._path = client, f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._namespace, self._permissions, self._duration = namespace, permissions, duration_seconds
        self._live: dict[str, Any] = {}
        self._renewed_at = 0.0
        self._lost: LeaseLostError | None = None
        self._lock = threading.Lock()
        self._ended = threading.Event()

    def check(self, *, patience_seconds: float) -> None:
        """Makes sure that the lease is still held; call it before each write to what it protects.

        A lease that was not renewed in time, since the API server was away, is renewed here.

        Raises:
            LeaseLostError: another process took it over.
            KubernetesError, ConnectionError: the API server refuses, or stays away.
        """
        if self._lost or time.monotonic() - self._renewed_at > self._duration * 2 / _RENEWALS_PER_DURATION:
            self._renew(patience_seconds=patience_seconds)

    def acquire(self, *, patience_seconds: float, sleep: Callable[[float], None] = time.sleep) -> None:
        """Waits for the lease and takes it. Each holder may keep it for `patience_seconds`.

        Raises:
            KubernetesError: somebody keeps it for longer, or the API server refuses.
            ConnectionError: the API server stays away.
        """
        version, seen_at, holder, held_since = "", 0.0, "", time.monotonic()
        while True:
            live = self._read(patience_seconds) or self._create(patience_seconds)
            if live is None:
                continue  # another one made it at the same time
            spec, now = live["spec"], time.monotonic()
            if live["metadata"]["resourceVersion"] != version:
                version, seen_at = live["metadata"]["resourceVersion"], now
            present = spec.get("holderIdentity") or ""
            has_expired = now - seen_at > spec.get("leaseDurationSeconds", self._duration)
            if (present in ("", self.holder) or has_expired) and self._take(live, patience_seconds):
                return
            if present != holder:
                holder, held_since = present, now
                log.info("waiting for the lease %s, which %s holds since %s", self.name, present, _since(spec))
            if now - held_since > patience_seconds:
                raise KubernetesError(
                    f"the lease {self._namespace}/{self.name} is held by {present} since {_since(spec)}, longer than "
                    f"{patience_seconds:.0f} s: see what that process does, or remove the lease (kubectl delete lease "
                    f"-n {self._namespace} {self.name})"
                )
            sleep(_LOOK_SECONDS)

    def keep(self) -> None:
        """Renews the lease until it is lost or given back; what a thread of its own does."""
        while not self._ended.wait(self._duration / _RENEWALS_PER_DURATION):
            try:
                self._renew(patience_seconds=0)
            except LeaseLostError as error:
                log.warning("%s", error)
                return
            except (KubernetesError, ConnectionError) as error:
                log.warning("%s", error)  # `check` tries again before anything is written

    def give_back(self, *, patience_seconds: float) -> None:
        """Lets the next one in at once; where that fails, it comes in when the lease has expired."""
        self._ended.set()
        with self._lock:
            if self._live.get("spec", {}).get("holderIdentity") != self.holder:
                return
            spec = {key: value for key, value in self._live["spec"].items() if key != "holderIdentity"}
            try:
                self._replace(spec | {"leaseDurationSeconds": 1, "renewTime": _now()}, patience_seconds)
            except (KubernetesError, ConnectionError) as error:
                log.warning("the lease %s was not given back: %s", self.name, error)

    def _renew(self, *, patience_seconds: float) -> None:
        with self._lock:
            if self._lost:
                raise self._lost
            if self._ended.is_set() or self._replace(self._live["spec"] | {"renewTime": _now()}, patience_seconds):
                return
            live = self._read(patience_seconds)  # a repeated renewal finds its own unanswered one
            if live is None or live["spec"].get("holderIdentity") != self.holder:
                taker = live["spec"].get("holderIdentity") if live else None
                self._lost = LeaseLostError(
                    f"the lease {self._namespace}/{self.name} was lost to {taker or 'nobody: it was removed'}; nothing "
                    "that it protects is changed any more"
                )
                raise self._lost
            self._live, self._renewed_at = live, time.monotonic()

    def _take(self, live: dict[str, Any], patience_seconds: float) -> bool:
        """Whether this process is the holder now; not where another one was faster."""
        was_own = live["spec"].get("holderIdentity") == self.holder
        transitions = live["spec"].get("leaseTransitions", 0) + (0 if was_own else 1)
        self._live = live
        return self._replace(self._held(_now()) | {"leaseTransitions": transitions}, patience_seconds)

    def _held(self, now: str) -> dict[str, Any]:
        times = {"acquireTime": now, "renewTime": now}
        return {"holderIdentity": self.holder, "leaseDurationSeconds": self._duration, **times}

    def _create(self, patience_seconds: float) -> dict[str, Any] | None:
        body = self._body({"name": self.name, "namespace": self._namespace}, self._held(_now()))
        return self._call("POST", "", body, patience_seconds)

    def _replace(self, spec: dict[str, Any], patience_seconds: float) -> bool:
        """Whether the version that was last seen is now replaced; not where there is a newer one, or none."""
        asked_at = time.monotonic()
        body = self._body(self._live["metadata"], spec)
        replaced = self._call("PUT", f"/{self.name}", body, patience_seconds)
        if replaced is None:
            return False
        self._live, self._renewed_at = replaced, asked_at
        return True

    def _read(self, patience_seconds: float) -> dict[str, Any] | None:
        return self._call("GET", f"/{self.name}", None, patience_seconds)

    def _body(self, metadata: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}

    def _call(self, method: str, path: str, body: Any, patience_seconds: float) -> dict[str, Any] | None:
        """The object; null where there is none, or somebody else was faster."""
        from kubernetes.client import ApiException

        def call() -> Any:
            return self._client.call_api(
                self._path + path,
                method,
                header_params={"Accept": "application/json", "Content-Type": "application/json"},
                body=body,
                response_type="object",
                auth_settings=["BearerToken"],
                _return_http_data_only=True,
                _request_timeout=api.CALL_SECONDS,
            )

        try:
            found: dict[str, Any] = api.retried(call, patience_seconds=patience_seconds)
            return found
        except ApiException as error:
            is_missing = error.status == 404 and "namespaces" not in api.message_of(error) and method != "POST"
            if error.status == 409 or is_missing:
                return None
            raise api.explained(error, f"the lease {self.name}", permissions=self._permissions) from error


@contextmanager
def held_lease(
    client: Any,
    namespace: str,
    name: str,
    *,
    patience_seconds: float,
    permissions: str,
    duration_seconds: int,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Lease]:
    """Inside, this process holds the lease; `client` is a `kubernetes.client.ApiClient`.

    `patience_seconds` is how long each other holder may keep it, `duration_seconds` how long one that was killed keeps
    it; `permissions` says where the rights for it stand; `sleep` is what ends the wait when it raises.

    Raises:
        KubernetesError: another process keeps the lease for longer, or the API server refuses.
        ConnectionError: the API server stays away.
    """
    lease = Lease(client, namespace, name, permissions=permissions, duration_seconds=duration_seconds)
    try:
        lease.acquire(patience_seconds=patience_seconds, sleep=sleep)
        threading.Thread(target=lease.keep, name=f"lease-{name}", daemon=True).start()
        yield lease
    finally:
        lease.give_back(patience_seconds=duration_seconds)


def _now() -> str:
    """As Kubernetes reads a MicroTime: always six digits."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _since(spec: dict[str, Any]) -> str:
    return str(spec.get("acquireTime", "an unknown time"))
