"""The pipeline's parameters from a run's settings."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from ivcp.settings import RunConfig
from ivcp.settings.curriculum import CurriculumStage, curriculum_text

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
    _check_placeholders(changed)
    text = "".join(f"{_line(key, value)}\n" for key, value in changed.items())
    return {"settings": text, "overrides": {}, "deploy": deploy}


def curriculum_arguments(stages: Sequence[CurriculumStage], *, deploy: bool = True) -> dict[str, Any]:
    """Arguments of the pipeline `curriculum` of so many stages: one line, with all that their files say.

    Raises:
        ValueError: a stage has no data set, the first one no base model, or a setting has a placeholder of KFP's.
    """
    for stage in stages:
        needed = REQUIRED if stage.number == 1 else ("dataset",)
        if missing := [key for key in needed if not stage.given.get(key)]:
            raise ValueError(f"stage {stage.name}: {missing[0]} is not set: the pipeline needs it")
        _check_placeholders(stage.given)
    return {"settings": curriculum_text(stages), "overrides": {}, "deploy": deploy}


def prepares_in_parts(config: RunConfig) -> bool:
    """Whether the run is of the pipeline that prepares clips in several pods side by side."""
    return config.data.preprocessing_parts > 1


def _check_placeholders(settings: Mapping[str, Any]) -> None:
    for key, value in settings.items():
        if _PLACEHOLDER in str(value):
            raise ValueError(
                f"{key} has {_PLACEHOLDER} in it, which Kubeflow Pipelines takes for a placeholder of its own"
            )


def _line(key: str, value: Any) -> str:
    """A setting as a line of YAML."""
    line = yaml.safe_dump({key: value}, default_flow_style=True, width=math.inf, allow_unicode=True).strip()[1:-1]
    return f"{key}: {json.dumps(value, ensure_ascii=False)}" if "\n" in line else line
