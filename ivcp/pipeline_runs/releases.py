"""What is compiled for servers of one release and not for others: they refuse fields that they do not know.

| since | field | without it |
|---|---|---|
| 2.15 | `optional` of secrets in the environment | mounted as files, which `ivcp.network` reads |
| 2.17 | `literals` of parameters: drop-downs in the form (2.16 has them in the API only) | text fields |
"""

from __future__ import annotations

from typing import Any

from google.protobuf import json_format

from ivcp import network
from ivcp.settings.form import choices

OLDEST = (2, 14)
_OPTIONAL_ENVIRONMENT, _DROP_DOWNS = (2, 15), (2, 17)
_AS_FILES = {
    "secretAsEnv": ("secretAsVolume", "secretName", "secretNameParameter"),
    "configMapAsEnv": ("configMapAsVolume", "configMapName", "configMapNameParameter"),
}
"""Fields of a step's Kubernetes settings → the field that mounts files instead, and those of the object's name."""


def fit(pipeline: Any, release: tuple[int, int]) -> Any:
    """Changes a pipeline of kfp's to what servers from `release` on know; returns it."""
    if release >= _DROP_DOWNS:
        _add_drop_downs(pipeline.pipeline_spec)
    if release < _OPTIONAL_ENVIRONMENT:
        for executor in pipeline.platform_spec.platforms["kubernetes"].deployment_spec.executors.values():
            described = _with_files(json_format.MessageToDict(executor))
            executor.Clear()
            json_format.ParseDict(described, executor)
    return pipeline


def _add_drop_downs(spec: Any) -> None:
    for name, parameter in spec.root.input_definitions.parameters.items():
        for choice in choices(name):
            literal = parameter.literals.add()
            if isinstance(choice, bool):
                literal.bool_value = choice
            else:
                literal.string_value = choice


def _with_files(settings: dict[str, Any]) -> dict[str, Any]:
    """A step's Kubernetes settings with files below `network.FOLDER` in place of optional environment variables."""
    for variables, (files, name, parameter) in _AS_FILES.items():
        optional = [entry for entry in settings.get(variables, ()) if entry.get("optional")]
        kept = [entry for entry in settings.pop(variables, ()) if not entry.get("optional")]
        if kept:
            settings[variables] = kept
        for entry in optional:
            called = {key: entry[key] for key in (name, parameter) if key in entry}
            mount = {"mountPath": str(network.FOLDER / entry[name]), "optional": True}
            settings.setdefault(files, []).append(called | mount)
    return settings
