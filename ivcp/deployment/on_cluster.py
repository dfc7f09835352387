"""A deployment to a Kubernetes cluster: applied, rolled out, checked with one clip, and taken back when anything fails.

What served before is read from the cluster (the fields that `ivcp` applied) and written into an annotation of the
Deployment by the same call that changes it. If a step is killed in the middle, the next one finds there what it has to
restore if it fails. The annotation is removed when the new model has given the right answer.
"""

from __future__ import annotations

import json
import logging
import math
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from ivcp.deployment.applied_fields import applied_by
from ivcp.deployment.cluster_objects import FIELD_MANAGER, ClusterObjects, FieldConflictError
from ivcp.deployment.locally import DEPLOYMENT_FILE
from ivcp.deployment.predictor_manifests import (
    DEPLOYMENT,
    SERVICE,
    Manifest,
    ServedModel,
    predictor_manifests,
)
from ivcp.deployment.rollout import REVISION, is_rolled_out, wait_for_rollout
from ivcp.deployment.smoke_test import REQUEST_SECONDS, DeploymentError, SmokeOutcome, ask, check_answer
from ivcp.kubernetes import api
from ivcp.kubernetes.api import KubernetesError, Terminated
from ivcp.records import Record
from ivcp.records.evaluation import SmokeClip
from ivcp.serving.predictor import Answer
from ivcp.settings import RunConfig

log = logging.getLogger(__name__)

FORMER = "ivcp.dev/serves-if-this-fails"
"""Annotation with what `ivcp` had applied before, while a deployment is under way."""

_SERVICE_SECONDS = 60.0
"""How long the Service may need to send requests to the new pods only."""
_PAUSE_SECONDS = 0.5
_RESTORE_SECONDS, _RESTORE_WHEN_TERMINATED_SECONDS = 300.0, 20.0
"""For the former pods to serve again, and for the calls alone where the step's own pod has to end within 30 s."""

Former = dict[str, Manifest | None]
"""What `ivcp` had applied, by kind; null where the object did not exist."""


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
) -> ClusterDeployment:
    """Rolls `model` out, asks its Service for `smoke_clip`, and writes `deployment.json` to `output_dir`.

    `image` is the predictor's. `model_dir` is a copy of the model here, whose settings say how exact the answer has to
    be. When anything fails, and when this process gets SIGTERM, what served before is applied again; on a first
    deployment everything is removed.

    Raises:
        DeploymentError: the rollout does not succeed, or the answer is not evaluation's.
        FieldConflictError: another field manager owns what has to change; nothing was changed then.
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
    objects = ClusterObjects(api.connect(), serving.serve_namespace, patience_seconds=timeout)
    url = serving.serve_url or f"http://{name}.{serving.serve_namespace}.svc"
    with api.ends_on_sigterm():
        former = _former_state(objects, wanted, take_over=serving.serve_take_over)
        try:
            began = time.monotonic()
            generation = _apply(objects, wanted, former=former, take_over=serving.serve_take_over)
            live = wait_for_rollout(objects, name, generation=generation, timeout_seconds=timeout)
            seconds_until_ready = time.monotonic() - began
            smoke = _smoke_test(url, model=model, model_dir=model_dir, smoke_clip=smoke_clip)
            objects.apply(_deployment(wanted), take_over=serving.serve_take_over)
        except BaseException as error:
            _restore(objects, former, name=name, error=error, take_over=serving.serve_take_over)
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


def _former_state(objects: ClusterObjects, wanted: Sequence[Manifest], *, take_over: bool) -> Former:
    """What to go back to: what an interrupted deployment wrote down, else what `ivcp` has applied until now.

    Everything is applied in a dry run first: conflicts and missing permissions are found before anything changes.
    """
    live = {manifest["kind"]: objects.read(manifest["kind"], manifest["metadata"]["name"]) for manifest in wanted}
    planned = {manifest["kind"]: _planned(objects, manifest, take_over=take_over) for manifest in wanted}
    written = (live[DEPLOYMENT] or {}).get("metadata", {}).get("annotations", {}).get(FORMER)
    if written:
        log.info("an earlier deployment was interrupted: if this one fails, what served before that one comes back")
        former: Former = json.loads(written)
        return former
    return {
        kind: None if body is None else applied_by(FIELD_MANAGER, body, planned=planned[kind]) or _empty(body)
        for kind, body in live.items()
    }


def _planned(objects: ClusterObjects, manifest: Manifest, *, take_over: bool) -> Manifest | None:
    try:
        return objects.apply(manifest, take_over=take_over, dry_run=True)
    except FieldConflictError:
        if _is_required(manifest):
            raise
        return None


def _empty(body: Manifest) -> Manifest:
    """Applying this gives up all fields: another field manager made the object."""
    names = {key: body["metadata"][key] for key in ("name", "namespace")}
    return {"apiVersion": body["apiVersion"], "kind": body["kind"], "metadata": names}


def _apply(objects: ClusterObjects, wanted: Sequence[Manifest], *, former: Former, take_over: bool) -> int:
    """Applies all objects; the Deployment's generation.

    An autoscaler or a disruption budget that somebody else has changed stays as it is.
    """
    generation = 0
    for manifest in wanted:
        if manifest["kind"] == DEPLOYMENT:
            annotated = _annotated(manifest, {FORMER: json.dumps(former, separators=(",", ":"))})
            generation = objects.apply(annotated, take_over=take_over)["metadata"]["generation"]
            continue
        _apply_unless_owned(objects, manifest, take_over=take_over)
    return generation


def _apply_unless_owned(objects: ClusterObjects, manifest: Manifest, *, take_over: bool) -> None:
    """Applies an object; one that a deployment can do without stays as somebody else has changed it."""
    try:
        objects.apply(manifest, take_over=take_over)
    except FieldConflictError as error:
        if _is_required(manifest):
            raise
        log.warning("left as it is: %s", error)


def _is_required(manifest: Manifest) -> bool:
    return manifest["kind"] in (DEPLOYMENT, SERVICE)


def _annotated(manifest: Manifest, annotations: Mapping[str, str]) -> Manifest:
    metadata = manifest["metadata"]
    return {**manifest, "metadata": {**metadata, "annotations": metadata.get("annotations", {}) | annotations}}


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


def _restore(objects: ClusterObjects, former: Former, *, name: str, error: BaseException, take_over: bool) -> None:
    """Applies what served before, and removes what did not exist; a failure of this is added to `error` as a note."""
    is_terminated = isinstance(error, Terminated)
    objects.patience_seconds = _RESTORE_WHEN_TERMINATED_SECONDS if is_terminated else _RESTORE_SECONDS
    log.warning("the deployment of %s is taken back: %s", name, "SIGTERM" if is_terminated else error)
    try:
        with _undisturbed():
            _put_back(objects, former, name=name, take_over=take_over)
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


def _put_back(objects: ClusterObjects, former: Former, *, name: str, take_over: bool) -> None:
    for kind, manifest in sorted(former.items(), key=lambda item: item[0] != DEPLOYMENT):
        if manifest is None:
            objects.delete(kind, name)
        else:
            _apply_unless_owned(objects, manifest, take_over=take_over)


def _serving_again(objects: ClusterObjects, name: str) -> str:
    live = objects.read(DEPLOYMENT, name)
    if live is None:
        return f"{name} was deleted meanwhile"
    generation = live["metadata"]["generation"]
    if not is_rolled_out(live, generation):
        wait_for_rollout(objects, name, generation=generation, timeout_seconds=_RESTORE_SECONDS)
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
