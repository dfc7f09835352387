"""The model card's metadata block, as the Hugging Face hub reads it: licence, base model, tags, figures."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ivcp.export.exits.public import hub_id
from ivcp.models.hub import is_offline
from ivcp.models.source import local_model
from ivcp.records import MODEL_CARD_FILE
from ivcp.records.evaluation import EvaluationMetrics
from ivcp.records.language_evaluation import Measured
from ivcp.settings import ModelConfig
from ivcp.settings.places import is_remote_model

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

log = logging.getLogger(__name__)

_TASK, _TASK_WORDS = "video-classification", "Video Classification"
_LANGUAGE_TASK = "video-text-to-text"
_UNKNOWN = "unknown"
"""The hub's own word for a licence that nobody has named."""
_LICENCE_KEYS = ("license", "license_name", "license_link")


def card_metadata(
    *,
    name: str,
    base: ModelConfig,
    licence: str | None,
    metrics: Measured | None,
    data_sets: Sequence[str],
    is_for_transformers: bool,
    is_classifier: bool = True,
) -> str:
    """The block as YAML. `name` is the model's, `data_sets` the names of what it was trained on.

    transformers is the library only where its pipeline reads the directory.
    """
    from huggingface_hub import ModelCardData

    accuracies = metrics if isinstance(metrics, EvaluationMetrics) else None
    base_model = hub_id(base.required_name)
    data = ModelCardData(
        **_licence(base, licence),
        base_model=base_model,
        base_model_relation="finetune" if base_model else None,
        library_name="transformers" if is_for_transformers else "ivcp",
        pipeline_tag=_TASK if is_classifier else _LANGUAGE_TASK,
        tags=["action-recognition", "ivcp", _TASK] if is_classifier else ["ivcp", _LANGUAGE_TASK],
        metrics=["accuracy"] if accuracies else None,
        model_name=name,
        eval_results=_results(accuracies, data_sets) if accuracies else None,
    )
    if not accuracies:
        data.pop("model_name")
    return str(data.to_yaml())


def _results(metrics: EvaluationMetrics, data_sets: Sequence[str]) -> list[EvalResult]:
    from huggingface_hub import EvalResult

    named = ", ".join(data_sets) or "own clips"
    figures = {
        "Top-1 accuracy": metrics.top1_accuracy,
        "Top-5 accuracy": metrics.top5_accuracy,
        "Mean class accuracy": metrics.mean_class_accuracy,
    }
    return [
        EvalResult(
            task_type=_TASK,
            task_name=_TASK_WORDS,
            dataset_type=data_sets[0] if data_sets else "videofolder",
            dataset_name=named,
            dataset_split=metrics.split,
            metric_type="accuracy",
            metric_name=words,
            metric_value=round(value, 6),
        )
        for words, value in figures.items()
    ]


def _licence(base: ModelConfig, licence: str | None) -> dict[str, Any]:
    """What the setting says, or else the base model's card: merged weights are a work made from its weights."""
    if licence:
        return {"license": licence}
    card = _base_card(base)
    found = {key: card.get(key) for key in _LICENCE_KEYS if card.get(key)} if card is not None else {}
    if not found:
        log.warning("the licence of %s is not known: set export_license for the model card", base.required_name)
    return found or {"license": _UNKNOWN}


def _base_card(base: ModelConfig) -> Any:
    """The metadata of the base model's card; null where there is none, or nobody gives it."""
    from httpx2 import HTTPError
    from huggingface_hub import ModelCard
    from huggingface_hub.errors import HfHubHTTPError

    name = base.required_name
    folder = Path(local_model(name, with_weights=False)) if is_remote_model(name) else Path(name)
    try:
        path = folder / MODEL_CARD_FILE if folder.is_dir() else _downloaded_card(base)
        return ModelCard.load(path, ignore_metadata_errors=True).data if Path(path).is_file() else None
    except (HfHubHTTPError, HTTPError, OSError, ValueError) as error:
        log.warning("the card of %s cannot be read (%s)", name, error)
        return None


def _downloaded_card(base: ModelConfig) -> str:
    from huggingface_hub import hf_hub_download

    return hf_hub_download(
        base.required_name,
        MODEL_CARD_FILE,
        revision=base.model_revision,
        cache_dir=base.cache_dir,
        local_files_only=is_offline(),
    )
