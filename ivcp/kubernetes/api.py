"""The Kubernetes API: a client for where this process runs, calls that outlive an API server's restart, and errors
in the project's words.

The client is the package `kubernetes`, imported where it is used: that takes a second.
"""

from __future__ import annotations

import json
import logging
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")

CALL_SECONDS = (5.0, 30.0)
"""To connect, and to wait for an answer: `_request_timeout` of every call that is not a stream."""
PATIENCE_SECONDS = 1800.0
"""How long an API server may be out of reach: a control plane that is upgraded comes back within minutes."""
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.2, 15.0
_PASSING = {408, 429, 500, 502, 503, 504}
"""Answers that say: later."""

log = logging.getLogger(__name__)


class KubernetesError(RuntimeError):
    """What the cluster refuses or lacks; the message says what to do."""


class Terminated(SystemExit):
    """SIGTERM: the run was terminated, or this pod is being evicted. Like Ctrl-C this is no error."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


def connect() -> Any:
    """A client of the cluster that this pod runs in, else of the kubeconfig's current context.

    Returns `kubernetes.client.ApiClient`. It does not repeat requests by itself: `retried` does.

    Raises:
        KubernetesError: there is neither.
    """
    from kubernetes import client, config

    configuration = client.Configuration()
    try:
        config.load_incluster_config(client_configuration=configuration)
    except config.ConfigException:
        try:
            config.load_kube_config(client_configuration=configuration)
        except config.ConfigException as error:
            raise KubernetesError(
                f"no Kubernetes cluster to talk to ({error}): run this in a pod with a service account, or point "
                "KUBECONFIG at a file with a current context"
            ) from error
    configuration.retries = False
    return client.ApiClient(configuration)


def retried(
    call: Callable[[], T],
    *,
    patience_seconds: float = PATIENCE_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """The result of `call`, repeated with growing pauses while the API server is away or asks to come back later.

    A repeated create may find what an unanswered one made: `call` must accept that (409).

    Raises:
        kubernetes.client.ApiException: any other refusal, at once.
        ConnectionError: `patience_seconds` passed without an answer.
    """
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    began, pause, complained = time.monotonic(), _FIRST_PAUSE_SECONDS, False
    while True:
        try:
            return call()
        except (ApiException, HTTPError) as error:
            if isinstance(error, ApiException) and error.status not in _PASSING:
                raise
            if time.monotonic() - began > patience_seconds:
                raise ConnectionError(
                    f"the Kubernetes API server did not answer for {patience_seconds:.0f} s ({_first_line(error)})"
                ) from error
            if not complained and time.monotonic() - began > 5:
                log.warning("the Kubernetes API server does not answer (%s): trying again", _first_line(error))
                complained = True
            sleep(_asked_pause(error) or pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def explained(error: Any, doing: str, *, permissions: str) -> KubernetesError:
    """An ApiException in the project's words: what was done (`doing`), the server's reason, and what to do.

    `permissions` says where the permissions for it stand.
    """
    reason = message_of(error)
    if error.status == 401:
        hint = "the credentials are not valid: renew the token or the kubeconfig"
    elif error.status == 403:
        hint = f"the service account lacks the permission: apply {permissions}, with the account that this step runs as"
    elif is_unknown_kind(error):
        hint = "the cluster does not know this kind of object: install its operator"
    elif error.status == 404 and "namespaces" in reason:
        hint = "create the namespace (kubectl apply -k manifests/overlays/…), or correct its name in the settings"
    else:
        hint = "see the server's reason"
    return KubernetesError(f"{doing}: the Kubernetes API server answers {error.status}: {reason}; {hint}")


def is_unknown_kind(error: Any) -> bool:
    """Whether an ApiException says that the cluster has no such kind of object, which it does in plain text."""
    return error.status == 404 and message_of(error) == "404 page not found"


def message_of(error: Any) -> str:
    """The message in an ApiException's body, which is a Status object unless a proxy answered."""
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return str(error.body or error.reason).strip()


class Termination:
    """Whether SIGTERM came."""

    came = False
    sleeps = False

    def check(self) -> None:
        """For loops that wait: Python drops an exception that is raised in a callback or in `__del__`.

        Raises:
            Terminated: SIGTERM came.
        """
        if self.came:
            raise Terminated

    def sleep(self, seconds: float) -> None:
        """`time.sleep`, which SIGTERM ends.

        Raises:
            Terminated: SIGTERM came.
        """
        try:
            self.sleeps = True  # before the look: a signal in between would be slept through
            self.check()
            time.sleep(seconds)
        finally:
            self.sleeps = False


@contextmanager
def ends_on_sigterm(*, anywhere: bool = True) -> Iterator[Termination]:
    """Inside, SIGTERM raises `Terminated` in the main thread, so that `finally` and `except` blocks run.

    With `anywhere` false only `check` and `sleep` raise it. A signal's exception can come between the taking of a lock
    and the block that gives it back: threads then wait for ever, which happened with the lock of `logging`.
    """
    termination = Termination()
    if threading.current_thread() is not threading.main_thread():
        yield termination
        return

    def end(number: int, frame: FrameType | None) -> None:
        termination.came = True
        if anywhere or termination.sleeps:
            raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield termination
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Inside, SIGTERM does not interrupt: what was begun is put in order first."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _asked_pause(error: Any) -> float | None:
    """Seconds of a Retry-After header."""
    from kubernetes.client import ApiException

    headers = error.headers if isinstance(error, ApiException) else None
    value = (headers or {}).get("Retry-After", "")
    return min(float(value), _LONGEST_PAUSE_SECONDS) if value.isdigit() else None


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
