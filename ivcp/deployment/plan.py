"""What a deployment is going to change, found out before it changes anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ivcp.deployment.applied_fields import applied_by
from ivcp.deployment.before import Former
from ivcp.deployment.cluster_objects import FIELD_MANAGER, ClusterObjects, FieldConflictError
from ivcp.deployment.predictor_manifests import (
    CONTAINER,
    DEPLOYMENT,
    NAME_ANNOTATION,
    SERVICE,
    VERSION_ANNOTATION,
    Manifest,
    ServedModel,
)
from ivcp.deployment.rollout import is_rolled_out
from ivcp.deployment.smoke_test import DeploymentError


@dataclass(frozen=True)
class Plan:
    """The objects of a deployment: as they shall be, as they are, and what to go back to."""

    wanted: Sequence[Manifest]
    live: Mapping[str, Manifest | None]
    """By kind; null where there is none."""
    planned: Mapping[str, Manifest | None]
    """What the server would make of `wanted`, by kind; null where another field manager stands in the way of an object
    that a deployment can do without."""
    former: Former
    """What `ivcp` has applied until now."""
    was_serving: bool
    """Whether all pods of that are ready."""
    take_over: bool
    """Whether fields of other field managers are written over."""

    @property
    def deployment(self) -> Manifest:
        """The Deployment's manifest."""
        return self._wanted(DEPLOYMENT)

    @property
    def service(self) -> Manifest:
        """The Service's manifest."""
        return self._wanted(SERVICE)

    @property
    def planned_deployment(self) -> Manifest:
        """The Deployment as it will be."""
        planned = self.planned[DEPLOYMENT]
        assert planned is not None, "a conflict about a Deployment is an error"
        return planned

    @property
    def changes_pods(self) -> bool:
        """Whether new pods come."""
        live = self.live[DEPLOYMENT]
        return live is None or live["spec"]["template"] != self.planned_deployment["spec"]["template"]

    def has_pods_of(self, deployment: Manifest | None) -> bool:
        """Whether nobody has changed the pods of the Deployment since, which is `deployment` now."""
        before = self.live[DEPLOYMENT]
        return (before and before["spec"]["template"]) == (deployment and deployment["spec"]["template"])

    def has_model(self, deployment: Manifest) -> bool:
        """Whether the pods of a Deployment serve the model of this plan, whatever else somebody changed in them."""
        return _model(deployment) == _model(self.deployment)

    def _wanted(self, kind: str) -> Manifest:
        return next(manifest for manifest in self.wanted if manifest["kind"] == kind)


def make_plan(objects: ClusterObjects, wanted: Sequence[Manifest], *, take_over: bool) -> Plan:
    """Reads everything, and applies everything in a dry run: conflicts and missing permissions are found here.

    Raises:
        DeploymentError: the Deployment is paused, or has no replicas.
        FieldConflictError: another field manager owns what has to change, and `take_over` is not set.
        KubernetesError, ConnectionError: the API server refuses, or stays away.
    """
    live = {manifest["kind"]: objects.read(manifest["kind"], manifest["metadata"]["name"]) for manifest in wanted}
    planned = {manifest["kind"]: _planned(objects, manifest, take_over=take_over) for manifest in wanted}
    former: Former = {
        kind: None if body is None else applied_by(FIELD_MANAGER, body, planned=planned[kind]) or _empty(body)
        for kind, body in live.items()
    }
    deployment = live[DEPLOYMENT]
    if deployment is not None:
        _check_starts_pods(deployment)
    was_serving = deployment is not None and is_rolled_out(deployment, deployment["metadata"]["generation"])
    return Plan(wanted, live, planned, former, was_serving, take_over)


def refuse_older(model: ServedModel, serving: Manifest | None) -> None:
    """A run that waited, or a step that is repeated, may come with a model from before the one that serves.

    Raises:
        DeploymentError: it does.
    """
    annotations = (serving or {}).get("metadata", {}).get("annotations", {})
    served = annotations.get(VERSION_ANNOTATION, "")
    if annotations.get(NAME_ANNOTATION) == model.name and served.isdecimal() and int(served) > model.version:
        raise DeploymentError(
            f"version {served} of {model.name} serves, and version {model.version} was registered before it: nothing "
            "was changed. Start a new run for a model of today, or set serve_take_over: true once to go back"
        )


def is_required(manifest: Manifest) -> bool:
    """Whether nothing serves without it."""
    return manifest["kind"] in (DEPLOYMENT, SERVICE)


def _check_starts_pods(deployment: Manifest) -> None:
    name, namespace = (deployment["metadata"][key] for key in ("name", "namespace"))
    if deployment["spec"].get("paused"):
        raise DeploymentError(
            f"Deployment {name} is paused, no pod of a new model would start: nothing was changed. Go on with kubectl "
            f"rollout resume -n {namespace} deployment/{name}"
        )
    if deployment["spec"].get("replicas") == 0:
        raise DeploymentError(
            f"Deployment {name} was scaled to 0 replicas, nothing would serve: nothing was changed. Start it with "
            f"kubectl scale -n {namespace} deployment/{name} --replicas=2"
        )


def _model(deployment: Manifest) -> dict[str, str | None]:
    """What names the model to a Deployment's pods."""
    containers = deployment["spec"]["template"]["spec"]["containers"]
    entries = [
        entry for container in containers if container["name"] == CONTAINER for entry in container.get("env", [])
    ]
    return {entry["name"]: entry.get("value") for entry in entries if entry["name"].startswith("IVCP_MODEL_")}


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
