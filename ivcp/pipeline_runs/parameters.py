"""The pipeline's parameters from a run's settings."""

from __future__ import annotations

import inspect
from typing import Any

from ivcp.pipeline_runs.installed import load_pipeline
from ivcp.settings import RunConfig

REQUIRED = ("model_name_or_path", "dataset", "shards_uri")
"""Settings that have no default in the pipeline."""


def pipeline_arguments(config: RunConfig, *, deploy: bool = True) -> dict[str, Any]:
    """Arguments of the pipeline `action_cls`: its typed parameters, and every other setting that is no default.

    Raises:
        ValueError: a setting that the pipeline cannot do without is missing.
    """
    settings = config.flat()
    for key in REQUIRED:
        if not settings[key]:
            raise ValueError(f"{key} is not set: the pipeline needs it")
    names = parameter_names()
    typed = {key: _as_parameter(key, settings.pop(key)) for key in names if key in settings}
    defaults = RunConfig().flat()
    overrides = {key: value for key, value in settings.items() if value != defaults[key]}
    return typed | {"deploy": deploy, "overrides": overrides}


def parameter_names() -> tuple[str, ...]:
    """Names of the pipeline's parameters, in order."""
    return tuple(inspect.signature(load_pipeline().pipeline_func).parameters)


def _as_parameter(key: str, value: Any) -> Any:
    """Names are one text in KFP's form, comma-separated; what is JSON there stays so."""
    names = key in ("dataset", "test_dataset")
    return ",".join(value) if names else value
