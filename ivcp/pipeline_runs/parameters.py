"""The pipeline's parameters from a run's settings."""

from __future__ import annotations

import json
import math
from typing import Any

import yaml

from ivcp.settings import RunConfig

REQUIRED = ("model_name_or_path", "dataset")
"""Settings that have no default."""
_PLACEHOLDER = "{{$"


def pipeline_arguments(config: RunConfig, *, deploy: bool = True) -> dict[str, Any]:
    """Arguments of the pipeline `action_cls`: what is no default, as the YAML text that a person would paste.

    Each setting is one line, so that the text can be copied from the page into the form, which takes line ends out.

    Raises:
        ValueError: a setting that the pipeline cannot do without is missing, or has a placeholder of KFP's in it.
    """
    settings, defaults = config.flat(), RunConfig().flat()
    for key in REQUIRED:
        if not settings[key]:
            raise ValueError(f"{key} is not set: the pipeline needs it")
    changed = {key: value for key, value in settings.items() if value != defaults[key]}
    text = "".join(f"{_line(key, value)}\n" for key, value in changed.items())
    if _PLACEHOLDER in text:
        key = next(key for key, value in changed.items() if _PLACEHOLDER in str(value))
        raise ValueError(f"{key} has {_PLACEHOLDER} in it, which Kubeflow Pipelines takes for a placeholder of its own")
    return {"settings": text, "overrides": {}, "deploy": deploy}


def prepares_in_parts(config: RunConfig) -> bool:
    """Whether the run is of the pipeline that prepares clips in several pods side by side."""
    return config.data.preprocessing_parts > 1


def _line(key: str, value: Any) -> str:
    """A setting as a line of YAML."""
    line = yaml.safe_dump({key: value}, default_flow_style=True, width=math.inf, allow_unicode=True).strip()[1:-1]
    return f"{key}: {json.dumps(value, ensure_ascii=False)}" if "\n" in line else line
