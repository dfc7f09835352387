"""The way back of a deployment that failed: what served before is applied again."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ivcp.deployment.before import Former, forget_before
from ivcp.deployment.cluster_objects import ClusterObjects, FieldConflictError
from ivcp.deployment.predictor_manifests import DEPLOYMENT, SERVICE, Manifest
from ivcp.deployment.rollout import is_rolled_out, wait_for_rollout
from ivcp.deployment.smoke_test import DeploymentError
from ivcp.kubernetes.api import KubernetesError, Terminated

log = logging.getLogger(__name__)

RESTORE_SECONDS = 300.0
"""For the former pods to serve again."""
_WHEN_TERMINATED_SECONDS = 20.0
"""For the calls alone, where the step's own pod has to end within 30 s."""


def restore(objects: ClusterObjects, former: Former, *, name: str, error: BaseException, take_over: bool) -> None:
    """Applies what served before, and removes what did not exist; a failure of this is added to `error` as a note."""
    is_terminated = isinstance(error, Terminated)
    objects.patience_seconds = _WHEN_TERMINATED_SECONDS if is_terminated else RESTORE_SECONDS
    log.warning("the deployment of %s is taken back: %s", name, "SIGTERM" if is_terminated else error)
    try:
        with _undisturbed():
            _put_back(objects, former, name=name, take_over=take_over)
            forget_before(objects, name)
        if former[DEPLOYMENT] is None:
            outcome = f"{name} did not exist before: what the step made was removed"
        elif is_terminated:
            outcome = f"what {name} served before was applied again"
        else:
            outcome = _serving_again(objects, name)
    except (KubernetesError, ConnectionError, DeploymentError) as failure:
        outcome = f"what {name} served before could not be restored: {failure}"
    error.add_note(outcome)
    log.warning("%s", outcome)


def apply_unless_owned(objects: ClusterObjects, manifest: Manifest, *, take_over: bool) -> None:
    """Applies an object; one that a deployment can do without stays as somebody else has changed it."""
    try:
        objects.apply(manifest, take_over=take_over)
    except FieldConflictError as error:
        if is_required(manifest):
            raise
        log.warning("left as it is: %s", error)


def is_required(manifest: Manifest) -> bool:
    """Whether nothing serves without it."""
    return manifest["kind"] in (DEPLOYMENT, SERVICE)


def _put_back(objects: ClusterObjects, former: Former, *, name: str, take_over: bool) -> None:
    for kind, manifest in sorted(former.items(), key=lambda item: item[0] != DEPLOYMENT):
        if manifest is None:
            objects.delete(kind, name)
        else:
            apply_unless_owned(objects, manifest, take_over=take_over)


def _serving_again(objects: ClusterObjects, name: str) -> str:
    live = objects.read(DEPLOYMENT, name)
    if live is None:
        return f"{name} was deleted meanwhile"
    generation = live["metadata"]["generation"]
    if not is_rolled_out(live, generation):
        wait_for_rollout(objects, name, generation=generation, timeout_seconds=RESTORE_SECONDS)
    return f"what {name} served before serves again"


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Inside, a second SIGTERM does not interrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
