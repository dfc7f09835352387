"""A deployment to a Kubernetes cluster: checked as a candidate, switched to, checked again, and promoted.

The candidate gets no traffic; where it fails, it is removed, and what serves was never touched. What served before the
switch is kept on the cluster in an object of its own: where a step is killed in the middle of it, the next one finds
there what it has to restore if it fails.

All of it happens under a lease: of two deployments at once, one waits for the other's end, and finds what that left.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ivcp.deployment.before import forget_before
from ivcp.deployment.candidate import candidate_manifests, candidate_url, running_candidate
from ivcp.deployment.cluster_objects import PERMISSIONS, ClusterObjects
from ivcp.deployment.locally import DEPLOYMENT_FILE
from ivcp.deployment.plan import Plan, make_plan, refuse_older
from ivcp.deployment.predictor_manifests import DEPLOYMENT, ServedModel, predictor_manifests
from ivcp.deployment.rollout import revision_of
from ivcp.deployment.smoke_test import SERVICE_SECONDS, DeploymentError, Smoke, SmokeOutcome, check_service
from ivcp.deployment.switch import RESTORE_SECONDS, switched
from ivcp.kubernetes import api
from ivcp.kubernetes.lease import Lease, held_lease
from ivcp.records import Record
from ivcp.settings import RunConfig
from ivcp.settings.sections.serving import ServingConfig

log = logging.getLogger(__name__)

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
    """From the beginning of the candidate to the last pod of the rollout."""
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
    smoke_clip: Smoke | None,
    output_dir: Path,
    promote: Callable[[], None] = lambda: None,
    takes_older: bool = False,
) -> ClusterDeployment:
    """Checks `model` as a candidate, switches what serves to it, and writes `deployment.json` to `output_dir`.

    `image` is the predictor's. `model_dir` is a copy of the model here, whose settings say how exact the answer to
    `smoke_clip` has to be. `promote` is called last, when the model serves. With `takes_older` it
    may be a version from before the one that serves. When anything fails, and when this process
    gets SIGTERM, what served before goes on or is applied again; what this deployment made is removed.

    Raises:
        DeploymentError: the pods do not start, the answer is not evaluation's, or a newer model serves already.
        FieldConflictError: another field manager owns what has to change; what serves was not changed then.
        ConfigError: the candidate's address does not follow from `serve_url`.
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
    url, to_candidate = serving.serve_url or f"http://{name}.{serving.serve_namespace}.svc", candidate_url(serving)
    client = api.connect()
    with api.ends_on_sigterm(anywhere=False) as termination, _turn(client, serving, termination) as lease:
        objects = ClusterObjects(
            client, serving.serve_namespace, patience_seconds=timeout, lease=lease, termination=termination
        )

        def check(at: str) -> SmokeOutcome | None:
            return check_service(at, model=model, model_dir=model_dir, smoke_clip=smoke_clip, termination=termination)

        began = time.monotonic()
        plan = make_plan(objects, wanted, take_over=serving.serve_take_over)
        if not (serving.serve_take_over or takes_older):
            refuse_older(model, plan.former[DEPLOYMENT])
        plan = _checked_by_candidate(objects, plan, lambda: check(to_candidate), timeout_seconds=timeout)
        with switched(objects, plan, timeout_seconds=timeout) as live:
            seconds_until_ready = time.monotonic() - began
            if not plan.has_model(live):
                raise DeploymentError(
                    f"somebody gave {name} another model while version {model.version} was rolled out"
                )
            smoke = check(url)
            forget_before(objects, name)
            with termination.interrupting():
                promote()
    result = ClusterDeployment(
        url=url,
        namespace=serving.serve_namespace,
        name=name,
        revision=str(revision_of(live)),
        image=image,
        model=model,
        seconds_until_ready=seconds_until_ready,
        smoke=smoke,
    )
    output_dir.mkdir(parents=True, exist_ok=True)
    result.write(output_dir / DEPLOYMENT_FILE)
    log.info("%s", result.summary)
    return result


def _turn(client: Any, serving: ServingConfig, termination: api.Termination) -> AbstractContextManager[Lease]:
    """The lease of all deployments of this name; another one may take as long as its own time limits."""
    return held_lease(
        client,
        serving.serve_namespace,
        f"{serving.serve_name}-deployment",
        patience_seconds=2 * (serving.serve_timeout_seconds + SERVICE_SECONDS) + RESTORE_SECONDS,
        permissions=PERMISSIONS,
        duration_seconds=_LEASE_SECONDS,
        sleep=termination.sleep,
    )


def _checked_by_candidate(
    objects: ClusterObjects, plan: Plan, check: Callable[[], object], *, timeout_seconds: float
) -> Plan:
    """The plan made anew, when a candidate has passed the check; without new pods there is nothing to check.

    What somebody changed meanwhile is newer than the wish to take over.
    """
    if plan.changes_pods:
        candidate = candidate_manifests(plan.deployment, plan.planned_deployment, plan.service)
        with running_candidate(objects, candidate, timeout_seconds=timeout_seconds):
            check()
    live = objects.read(DEPLOYMENT, plan.deployment["metadata"]["name"])
    return make_plan(objects, plan.wanted, take_over=plan.take_over and plan.has_pods_of(live))
