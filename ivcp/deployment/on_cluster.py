"""A deployment to a Kubernetes cluster: applied, rolled out, checked with one clip, and taken back when anything fails.

What served before is read from the cluster (the fields that `ivcp` applied) and kept there, in an object of its own. If
a step is killed in the middle, the next one finds there what it has to restore if it fails.

All of it happens under a lease: of two deployments at once, one waits for the other's end, and finds what that left.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx

from ivcp.deployment.applied_fields import applied_by
from ivcp.deployment.before import Former, forget_before, read_before, write_before
from ivcp.deployment.cluster_objects import FIELD_MANAGER, PERMISSIONS, ClusterObjects, FieldConflictError
from ivcp.deployment.locally import DEPLOYMENT_FILE
from ivcp.deployment.predictor_manifests import (
    DEPLOYMENT,
    NAME_ANNOTATION,
    VERSION_ANNOTATION,
    Manifest,
    ServedModel,
    predictor_manifests,
)
from ivcp.deployment.restore import RESTORE_SECONDS, apply_unless_owned, is_required, restore
from ivcp.deployment.rollout import REVISION, wait_for_rollout
from ivcp.deployment.smoke_test import REQUEST_SECONDS, DeploymentError, SmokeOutcome, ask, check_answer
from ivcp.kubernetes import api
from ivcp.kubernetes.lease import held_lease
from ivcp.records import Record
from ivcp.records.evaluation import SmokeClip
from ivcp.serving.predictor import Answer
from ivcp.settings import RunConfig

log = logging.getLogger(__name__)

_SERVICE_SECONDS = 60.0
"""How long the Service may need to send requests to the new pods only."""
_PAUSE_SECONDS = 0.5
_LEASE_SECONDS = 30
"""How long a deployment that was killed keeps the next one waiting."""


class ClusterDeployment(Record):
    """`deployment.json` of a deployment to a cluster."""

    url: str
    namespace: str
    name: str
    revision: str
    """As `kubectl rollout history` numbers it."""
    image: str
    model: ServedModel
    seconds_until_ready: float
    smoke: SmokeOutcome | None
    """What the Service answered; null when evaluation found no clip that can be compared."""

    @property
    def summary(self) -> str:
        """The result in a few words."""
        state = (
            f"{self.namespace}/{self.name} serves {self.model.name} v{self.model.version} (revision {self.revision})"
        )
        return f"{state}, {self.smoke.summary}" if self.smoke else f"{state}; no clip to compare"


def deploy_cluster(
    config: RunConfig,
    *,
    image: str,
    model: ServedModel,
    model_dir: Path,
    smoke_clip: SmokeClip | None,
    output_dir: Path,
    promote: Callable[[], None] = lambda: None,
) -> ClusterDeployment:
    """Rolls `model` out, asks its Service for `smoke_clip`, and writes `deployment.json` to `output_dir`.

    `image` is the predictor's. `model_dir` is a copy of the model here, whose settings say how exact the answer has to
    be. `promote` is called last, when the model serves. When anything fails, and when this process gets SIGTERM, what
    served before is applied again; on a first deployment everything is removed.

    Raises:
        DeploymentError: the rollout does not succeed, the answer is not evaluation's, or a newer model serves already.
        FieldConflictError: another field manager owns what has to change; nothing was changed then.
        LeaseLostError: another deployment took over; it knows what to go back to.
        KubernetesError: the cluster refuses, or lacks something.
        Terminated: SIGTERM.
    """
    serving = config.serving
    name, timeout = serving.serve_name, serving.serve_timeout_seconds
    wanted = predictor_manifests(
        model,
        name=name,
        namespace=serving.serve_namespace,
        image=image,
        progress_seconds=max(2, math.ceil(timeout)),
        trust_remote_code=config.model.trust_remote_code,
    )
    client, url = api.connect(), serving.serve_url or f"http://{name}.{serving.serve_namespace}.svc"
    waiting = held_lease(
        client,
        serving.serve_namespace,
        f"{name}-deployment",
        patience_seconds=timeout + _SERVICE_SECONDS + RESTORE_SECONDS,
        permissions=PERMISSIONS,
        duration_seconds=_LEASE_SECONDS,
    )
    with api.ends_on_sigterm(), waiting as lease:
        objects = ClusterObjects(client, serving.serve_namespace, patience_seconds=timeout, lease=lease)
        former = _former_state(objects, wanted, model=model, take_over=serving.serve_take_over)
        write_before(objects, name, former, _deployment(wanted))
        try:
            began = time.monotonic()
            generation = _apply(objects, wanted, take_over=serving.serve_take_over)
            live = wait_for_rollout(objects, name, generation=generation, timeout_seconds=timeout)
            seconds_until_ready = time.monotonic() - began
            smoke = _smoke_test(url, model=model, model_dir=model_dir, smoke_clip=smoke_clip)
            forget_before(objects, name)
            promote()
        except BaseException as error:
            restore(objects, former, name=name, error=error, take_over=serving.serve_take_over)
            raise
    result = ClusterDeployment(
        url=url,
        namespace=serving.serve_namespace,
        name=name,
        revision=live["metadata"].get("annotations", {}).get(REVISION, ""),
        image=image,
        model=model,
        seconds_until_ready=seconds_until_ready,
        smoke=smoke,
    )
    output_dir.mkdir(parents=True, exist_ok=True)
    result.write(output_dir / DEPLOYMENT_FILE)
    log.info("%s", result.summary)
    return result


def _deployment(manifests: Sequence[Manifest]) -> Manifest:
    return next(manifest for manifest in manifests if manifest["kind"] == DEPLOYMENT)


def _former_state(
    objects: ClusterObjects, wanted: Sequence[Manifest], *, model: ServedModel, take_over: bool
) -> Former:
    """What to go back to: what an interrupted deployment wrote down, else what `ivcp` has applied until now.

    Everything is applied in a dry run first: conflicts and missing permissions are found before anything changes.

    Raises:
        DeploymentError: that is a newer version of the same model, and `take_over` is not set.
    """
    live = {manifest["kind"]: objects.read(manifest["kind"], manifest["metadata"]["name"]) for manifest in wanted}
    planned = {manifest["kind"]: _planned(objects, manifest, take_over=take_over) for manifest in wanted}
    former: Former = {
        kind: None if body is None else applied_by(FIELD_MANAGER, body, planned=planned[kind]) or _empty(body)
        for kind, body in live.items()
    }
    former = read_before(objects, _deployment(wanted)["metadata"]["name"], live[DEPLOYMENT]) or former
    if not take_over:
        _refuse_older(model, former[DEPLOYMENT])
    return former


def _refuse_older(model: ServedModel, serving: Manifest | None) -> None:
    """A run that waited, or a step that is repeated, may come with a model from before the one that serves."""
    annotations = (serving or {}).get("metadata", {}).get("annotations", {})
    served = annotations.get(VERSION_ANNOTATION, "")
    if annotations.get(NAME_ANNOTATION) == model.name and served.isdecimal() and int(served) > model.version:
        raise DeploymentError(
            f"version {served} of {model.name} serves, and version {model.version} was registered before it: nothing "
            "was changed. Start a new run for a model of today, or set serve_take_over: true once to go back"
        )


def _planned(objects: ClusterObjects, manifest: Manifest, *, take_over: bool) -> Manifest | None:
    try:
        return objects.apply(manifest, take_over=take_over, dry_run=True)
    except FieldConflictError:
        if is_required(manifest):
            raise
        return None


def _empty(body: Manifest) -> Manifest:
    """Applying this gives up all fields: another field manager made the object."""
    names = {key: body["metadata"][key] for key in ("name", "namespace")}
    return {"apiVersion": body["apiVersion"], "kind": body["kind"], "metadata": names}


def _apply(objects: ClusterObjects, wanted: Sequence[Manifest], *, take_over: bool) -> int:
    """Applies all objects; the Deployment's generation.

    An autoscaler or a disruption budget that somebody else has changed stays as it is.
    """
    generation = 0
    for manifest in wanted:
        if manifest["kind"] == DEPLOYMENT:
            generation = objects.apply(manifest, take_over=take_over)["metadata"]["generation"]
            continue
        apply_unless_owned(objects, manifest, take_over=take_over)
    return generation


def _smoke_test(url: str, *, model: ServedModel, model_dir: Path, smoke_clip: SmokeClip | None) -> SmokeOutcome | None:
    """What the new model answers through its Service; without a clip the Service only has to be ready."""
    with httpx.Client(base_url=url, trust_env=False, timeout=REQUEST_SECONDS) as client:
        deadline = time.monotonic() + _SERVICE_SECONDS
        while True:
            reached = _reached(client)
            answer = ask(client, smoke_clip) if reached and smoke_clip else None
            if answer and smoke_clip and _is_from(answer, model):
                return check_answer(answer, smoke_clip, model_dir=model_dir)
            if reached and smoke_clip is None:
                return None
            if time.monotonic() > deadline:
                raise DeploymentError(_not_answered(url, answer, model))
            time.sleep(_PAUSE_SECONDS)


def _reached(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz", timeout=10.0).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def _is_from(answer: Answer, model: ServedModel) -> bool:
    """Old pods, and those of a canary, may answer behind the same address."""
    return (answer.model.name, answer.model.version) == (model.name, str(model.version))


def _not_answered(url: str, answer: Answer | None, model: ServedModel) -> str:
    if answer is None:
        return (
            f"{url}/readyz does not answer 200, though all pods are ready: can this step reach the Service (network "
            "policies, serve_url)?"
        )
    return f"{url} is answered by {answer.model.name} v{answer.model.version}, not by {model.name} v{model.version}"
