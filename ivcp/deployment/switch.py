"""The switch of what serves to a version that was checked, and the way back when that fails."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from ivcp.deployment.before import forget_before, read_before, write_before
from ivcp.deployment.cluster_objects import (
    FIELD_MANAGER,
    TERMINATED_SECONDS,
    ClusterObjects,
    FieldConflictError,
    ModifiedError,
)
from ivcp.deployment.plan import Plan, is_required
from ivcp.deployment.predictor_manifests import DEPLOYMENT, Manifest
from ivcp.deployment.rollout import is_rolled_out, wait_for_rollout
from ivcp.deployment.smoke_test import DeploymentError
from ivcp.kubernetes.api import KubernetesError, Terminated

RESTORE_SECONDS = 300.0
"""For the former pods to serve again."""

log = logging.getLogger(__name__)


@contextmanager
def switched(objects: ClusterObjects, plan: Plan, *, timeout_seconds: float) -> Iterator[Manifest]:
    """Inside, the plan's objects are applied and all pods are those of its Deployment, which is the value.

    When that fails, or what is done inside does, what served before is applied again: what an interrupted deployment
    wrote down, else what the plan found. An object that did not exist is removed. What somebody else has changed
    meanwhile stays as it is. A failure of this is added to the error as a note.

    Raises:
        DeploymentError: the rollout does not succeed, or somebody changed the Deployment's pods since the plan.
        FieldConflictError: another field manager owns what has to change.
        KubernetesError, ConnectionError: the API server refuses, or stays away.
    """
    name = plan.deployment["metadata"]["name"]
    kept = read_before(objects, name, plan.live[DEPLOYMENT])
    plan = replace(plan, former=plan.former | kept, was_serving=plan.was_serving or bool(kept))
    write_before(objects, name, plan.former, live=plan.live[DEPLOYMENT], attempt=plan.deployment)
    try:
        generation = _apply(objects, plan)
        yield wait_for_rollout(objects, name, generation=generation, timeout_seconds=timeout_seconds)
    except BaseException as error:
        _restore(objects, plan, name=name, error=error)
        raise


def _apply(objects: ClusterObjects, plan: Plan) -> int:
    """Applies all objects; the Deployment's generation."""
    generation = 0
    for manifest in plan.wanted:
        if manifest["kind"] == DEPLOYMENT:
            generation = _apply_as_planned(objects, plan)["metadata"]["generation"]
            continue
        _apply_unless_owned(objects, manifest, take_over=plan.take_over)
    return generation


def _apply_as_planned(objects: ClusterObjects, plan: Plan) -> Manifest:
    """Applies the Deployment to the version that has the plan's pods: nobody's change in between is written over."""
    manifest = plan.deployment
    while True:
        live = objects.read(DEPLOYMENT, manifest["metadata"]["name"])
        if not plan.has_pods_of(live):
            raise DeploymentError(
                f"{manifest['metadata']['name']} was changed while its successor was prepared: see what came, and "
                "deploy again"
            )
        version = {"resourceVersion": live["metadata"]["resourceVersion"]} if live else {}
        try:
            return objects.apply(manifest | {"metadata": manifest["metadata"] | version}, take_over=plan.take_over)
        except ModifiedError:
            log.debug("%s has another status now: it is read again", manifest["metadata"]["name"])


def _apply_unless_owned(objects: ClusterObjects, manifest: Manifest, *, take_over: bool) -> None:
    """Applies an object; an autoscaler or a disruption budget stays as somebody else has changed it."""
    try:
        objects.apply(manifest, take_over=take_over)
    except FieldConflictError as error:
        if is_required(manifest):
            raise
        log.warning("left as it is: %s", error)


def _restore(objects: ClusterObjects, plan: Plan, *, name: str, error: BaseException) -> None:
    is_terminated = isinstance(error, Terminated)
    patience = TERMINATED_SECONDS if is_terminated else RESTORE_SECONDS
    log.warning("the deployment of %s is taken back: %s", name, "SIGTERM" if is_terminated else error)
    try:
        with objects.cleaning_up(patience_seconds=patience):
            outcome = _put_back(objects, plan, name=name)
            forget_before(objects, name)
        if outcome is None:
            outcome = f"what {name} served before was applied again"
            if plan.was_serving and not is_terminated:
                outcome = _serving_again(objects, name)
    except (KubernetesError, ConnectionError, DeploymentError) as failure:
        outcome = f"what {name} served before could not be restored: {failure}"
    error.add_note(outcome)
    log.warning("%s", outcome)


def _put_back(objects: ClusterObjects, plan: Plan, *, name: str) -> str | None:
    """Applies what was there, the Deployment first; says why not, where somebody else has changed that."""
    live = objects.read(DEPLOYMENT, name)
    if live is None and plan.live[DEPLOYMENT] is not None:
        return f"{name} was deleted meanwhile: nothing was restored"
    if live is not None and not plan.has_pods_of(live) and not _has_planned_pods(live, plan):
        return f"{name} was changed meanwhile (by one of {_other_makers(live) or 'ivcp'}): it is left as it is"
    for kind, manifest in sorted(plan.former.items(), key=lambda item: item[0] != DEPLOYMENT):
        if manifest is not None:
            _apply_unless_owned(objects, manifest, take_over=False)
        else:
            _remove(objects, kind, name)
    return f"{name} did not exist before: what the step made was removed" if plan.former[DEPLOYMENT] is None else None


def _has_planned_pods(live: Manifest, plan: Plan) -> bool:
    return bool(live["spec"]["template"] == plan.planned_deployment["spec"]["template"])


def _remove(objects: ClusterObjects, kind: str, name: str) -> None:
    """Removes what did not exist before this deployment, unless somebody else made it meanwhile."""
    live = objects.read(kind, name)
    if live is None:
        return
    if makers := _other_makers(live):
        log.warning("%s %s was made or changed by %s meanwhile: it is left as it is", kind, name, makers)
        return
    objects.delete(kind, name, uid=live["metadata"]["uid"])


def _other_makers(live: Manifest) -> str:
    """The field managers but ours that have written what an object asks for.

    Status, and the number of replicas, which autoscalers and `kubectl scale` write, are subresources.
    """
    entries = live["metadata"].get("managedFields", [])
    managers = {
        entry["manager"]
        for entry in entries
        if not entry.get("subresource") and "f:spec" in entry["fieldsV1"] and entry["manager"] != FIELD_MANAGER
    }
    return ", ".join(sorted(managers))


def _serving_again(objects: ClusterObjects, name: str) -> str:
    live = objects.read(DEPLOYMENT, name)
    if live is None:
        return f"{name} was deleted meanwhile"
    generation = live["metadata"]["generation"]
    if not is_rolled_out(live, generation):
        wait_for_rollout(objects, name, generation=generation, timeout_seconds=RESTORE_SECONDS)
    return f"what {name} served before serves again"
