"""Schemas of objects: what the server accepts, and how its lists merge."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

import jsonschema
import kubeflow_trainer_api.models as trainer
from referencing import Registry
from referencing import Resource as Document

from tests.kubernetes_api.errors import ApiError
from tests.kubernetes_api.objects.resources import Resource

VERSION = "1.32.0"
Schema = dict[str, Any]

_REF = "#/$defs/"
_JOB_TEMPLATE = {"$ref": f"{_REF}io.k8s.api.batch.v1.JobTemplateSpec"}
_CONDITIONS = {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}


def _struct(**properties: Any) -> Schema:
    return {"type": "object", "properties": properties}


def _by_name(**properties: Any) -> Schema:
    keys = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
    return {"type": "array", "items": _struct(**properties), **keys}


_METADATA = {"$ref": f"{_REF}io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}
_CUSTOM: dict[str, Schema] = {
    # Only what says how lists merge: the trainer's own models validate these.
    "TrainJob": _struct(
        metadata=_METADATA,
        spec=_struct(
            trainer=_struct(env=_by_name(), resourcesPerNode=_struct()), runtimePatches=_by_name(), runtimeRef=_struct()
        ),
        status=_struct(conditions=_CONDITIONS, jobsStatus=_by_name()),
    ),
    "TrainingRuntime": _struct(
        metadata=_METADATA,
        spec=_struct(template=_struct(spec=_struct(replicatedJobs=_by_name(template=_JOB_TEMPLATE)))),
    ),
}
_CUSTOM["Workload"] = _struct(metadata=_METADATA)
_CUSTOM["ClusterTrainingRuntime"] = _CUSTOM["TrainingRuntime"]
_TRAINER_MODELS = {
    "TrainJob": trainer.TrainerV1alpha1TrainJob,
    "TrainingRuntime": trainer.TrainerV1alpha1TrainingRuntime,
    "ClusterTrainingRuntime": trainer.TrainerV1alpha1ClusterTrainingRuntime,
}


@cache
def definitions() -> dict[str, Schema]:
    """Every definition of the Kubernetes version, by its name."""
    folder = files("kubernetes_validate") / "kubernetes-json-schema" / f"v{VERSION}-local-strict"
    content: dict[str, dict[str, Schema]] = json.loads((folder / "_definitions.json").read_text(encoding="utf-8"))
    return content["$defs"]


@cache
def of_resource(resource: Resource) -> Schema:
    """The schema of a kind."""
    if resource.kind in _CUSTOM:
        return _CUSTOM[resource.kind]
    wanted = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    for definition in definitions().values():
        if wanted in definition.get("x-kubernetes-group-version-kind", ()):
            return definition
    raise KeyError(f"kubernetes-validate {VERSION} has no {resource.api_version} {resource.kind}")


def resolved(schema: Schema) -> Schema:
    """A schema behind its reference; what stands beside the reference counts."""
    while "$ref" in schema:
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        schema = definitions()[schema["$ref"].removeprefix(_REF)] | beside
    return schema


def field(schema: Schema, name: str) -> Schema:
    """The schema of a field of an object or a map; empty where nothing is known."""
    schema = resolved(schema)
    found = schema.get("properties", {}).get(name) or schema.get("additionalProperties")
    return resolved(found) if isinstance(found, dict) else {}


def items(schema: Schema) -> Schema:
    return resolved(schema.get("items", {}))


def is_atomic(schema: Schema) -> bool:
    """Whether an object is owned and replaced as a whole."""
    return schema.get("x-kubernetes-map-type") == "atomic"


@cache
def _validator(resource: Resource) -> jsonschema.Draft202012Validator:
    folder = files("kubernetes_validate") / "kubernetes-json-schema" / f"v{VERSION}-local-strict"
    document = Document.from_contents(json.loads((folder / "_definitions.json").read_text(encoding="utf-8")))
    schema = of_resource(resource) | {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    local = {"$id": "urn:kind", "$defs": document.contents["$defs"], **schema}
    return jsonschema.Draft202012Validator(local, registry=Registry())


def validate(resource: Resource, body: dict[str, Any]) -> None:
    """Refuses what the strict schema does not know; custom resources have to go through their models unchanged."""
    if (body.get("apiVersion"), body.get("kind")) != (resource.api_version, resource.kind):
        raise ApiError(400, f"the object is {body.get('apiVersion')} {body.get('kind')}, expected {resource.kind}")
    if resource.kind in _TRAINER_MODELS:
        _validate_custom(resource, body)
        return
    error = next(iter(_validator(resource).iter_errors(body)), None)
    if error is not None:
        path = ".".join(str(part) for part in error.absolute_path)
        raise ApiError(
            400, f"{resource.kind} in version {resource.api_version}: strict decoding error: {path}: {error.message}"
        )


def _validate_custom(resource: Resource, body: dict[str, Any]) -> None:
    # Managed fields are free JSON, which the model turns into an object of no fields.
    metadata = {key: value for key, value in body.get("metadata", {}).items() if key != "managedFields"}
    plain = without_null(body | {"metadata": metadata})
    try:
        model = _TRAINER_MODELS[resource.kind].from_dict(plain)
    except ValueError as error:
        raise ApiError(400, f"{resource.kind}: strict decoding error: {error}") from error
    kept = json.loads(json.dumps(model.to_dict(), default=str)) if model is not None else None
    if not _equal_but_times(kept, plain):
        raise ApiError(400, f"{resource.kind}: strict decoding error: unknown field: sent {plain}, understood {kept}")


def without_null(value: Any) -> Any:
    """A copy without the fields that are null, which the server does not keep."""
    if isinstance(value, dict):
        return {key: without_null(inner) for key, inner in value.items() if inner is not None}
    return [without_null(inner) for inner in value] if isinstance(value, list) else value


def _equal_but_times(kept: Any, sent: Any) -> bool:
    """Times come back from the models in another spelling."""
    if isinstance(kept, dict) and isinstance(sent, dict):
        return kept.keys() == sent.keys() and all(
            key.endswith(("Time", "Timestamp")) or _equal_but_times(kept[key], sent[key]) for key in kept
        )
    if isinstance(kept, list) and isinstance(sent, list):
        return len(kept) == len(sent) and all(map(_equal_but_times, kept, sent))
    return bool(kept == sent)
