"""The predictor's Kubernetes objects, filled in for one model.

The templates are `manifests/*.yaml` beside this file; `manifests/serving/base` of the repository builds on the same
ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import yaml

from ivcp.export.predictor_needs import PredictorNeeds
from ivcp.records import Record

Manifest = dict[str, Any]
"""A Kubernetes object as JSON."""

CONTAINER = "predictor"
CHANGE_CAUSE = "kubernetes.io/change-cause"
"""Annotation that `kubectl rollout history` shows."""
NAME_ANNOTATION, VERSION_ANNOTATION = "ivcp.dev/model-name", "ivcp.dev/model-version"
DEPLOYMENT, SERVICE = "Deployment", "Service"

_SCRATCH = "tmp"
_TEMPLATE_NAME = "action-classifier"
_FILES = ("service.yaml", "deployment.yaml", "hpa.yaml", "pdb.yaml")


class ServedModel(Record):
    """The model that is to be deployed, as its annotations say."""

    uri: str
    """Where the predictor's pods read it from."""
    name: str
    version: int
    run_id: str | None
    top1_accuracy: float | None = None
    """Null of a model without classes."""
    measured: str | None = None
    """What evaluation found of such a one, in a few words."""
    needs: PredictorNeeds | None = None
    """Memory and disk of each pod; null is the template's."""

    def annotations(self) -> dict[str, str]:
        """What `kubectl describe` shows."""
        run = f", run {self.run_id}" if self.run_id else ""
        accuracy = None if self.top1_accuracy is None else f"{self.top1_accuracy:.4f}"
        measured = self.measured if accuracy is None else f"top-1 {accuracy}"
        cause = f"model {self.name} version {self.version}{f', {measured}' if measured else ''}{run}"
        entries = {
            NAME_ANNOTATION: self.name,
            VERSION_ANNOTATION: str(self.version),
            "ivcp.dev/model-uri": self.uri,
            CHANGE_CAUSE: cause,
        }
        entries |= {"ivcp.dev/top1-accuracy": accuracy} if accuracy else {}
        return entries | ({"ivcp.dev/run-id": self.run_id} if self.run_id else {})


def predictor_manifests(
    model: ServedModel,
    *,
    name: str,
    namespace: str,
    image: str,
    progress_seconds: int,
    trust_remote_code: bool = False,
) -> list[Manifest]:
    """Service, Deployment, HorizontalPodAutoscaler and PodDisruptionBudget, in the order in which they are applied.

    `progress_seconds` is the rollout's deadline; `trust_remote_code` lets pods run code that comes with the model.
    `replicas` is in none of them: it belongs to the autoscaler.
    """
    manifests = [_renamed(manifest, name) for manifest in _templates()]
    for manifest in manifests:
        manifest["metadata"]["namespace"] = namespace
    deployment = next(manifest for manifest in manifests if manifest["kind"] == DEPLOYMENT)
    deployment["metadata"]["annotations"] = deployment["metadata"].get("annotations", {}) | model.annotations()
    deployment["spec"]["progressDeadlineSeconds"] = progress_seconds
    deployment["spec"]["minReadySeconds"] = min(deployment["spec"].get("minReadySeconds", 0), progress_seconds - 1)
    container = next(c for c in deployment["spec"]["template"]["spec"]["containers"] if c["name"] == CONTAINER)
    container["image"] = image
    environment = {
        "IVCP_MODEL_URI": model.uri,
        "IVCP_MODEL_NAME": model.name,
        "IVCP_MODEL_VERSION": str(model.version),
    }
    trust = {"IVCP_TRUST_REMOTE_CODE": "1"} if trust_remote_code else {}
    _set_environment(container, environment | trust)
    if model.needs is not None:
        _set_needs(deployment["spec"]["template"]["spec"], container, model.needs)
    return manifests


def _set_needs(pod: Manifest, container: Manifest, needs: PredictorNeeds) -> None:
    requests, limits = container["resources"]["requests"], container["resources"]["limits"]
    requests |= {"memory": needs.memory_request, "ephemeral-storage": needs.disk_request}
    limits |= {"memory": needs.memory_limit, "ephemeral-storage": needs.disk_limit}
    [scratch] = [volume for volume in pod["volumes"] if volume["name"] == _SCRATCH]
    scratch["emptyDir"]["sizeLimit"] = needs.disk


def _templates() -> list[Manifest]:
    folder = files("ivcp.deployment") / "manifests"
    return [yaml.safe_load((folder / name).read_text(encoding="utf-8")) for name in _FILES]


def _renamed(value: Any, name: str) -> Any:
    """A copy in which the template's name is `name`, in names, labels and selectors alike."""
    if isinstance(value, dict):
        return {key: _renamed(inner, name) for key, inner in value.items()}
    if isinstance(value, list):
        return [_renamed(inner, name) for inner in value]
    return name if value == _TEMPLATE_NAME else value


def _set_environment(container: Manifest, values: Mapping[str, str]) -> None:
    kept = [entry for entry in container.get("env", []) if entry["name"] not in values]
    container["env"] = [{"name": name, "value": value} for name, value in values.items()] + kept
