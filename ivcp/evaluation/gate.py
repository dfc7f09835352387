"""The gate: whether a model may be exported and deployed."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable

from ivcp import storage
from ivcp.evaluation.predict import PredictedSplit
from ivcp.models.backbone_files import ModelFilesError
from ivcp.records import PreparedIndex
from ivcp.records.evaluation import ChampionComparison, GateVerdict
from ivcp.settings import EvaluationConfig, ModelConfig, video_meaning
from ivcp.stages.directory import LoadedModel, load_directory
from ivcp.tracking import Champion

log = logging.getLogger(__name__)


def split_fingerprint(predicted: PredictedSplit, *, prepared_fingerprint: str) -> str:
    """A hash of the split's clips, their labels and how they were prepared; failed clips belong to it."""
    rows = [[clip_id, int(label)] for clip_id, label in zip(predicted.clip_ids, predicted.labels, strict=True)]
    rows += [[clip.clip_id, clip.label] for clip in predicted.failed]
    return hashlib.sha256(json.dumps([prepared_fingerprint, sorted(rows)]).encode()).hexdigest()[:32]


def why_unfit(model: LoadedModel, index: PreparedIndex) -> str | None:
    """What keeps `model` from predicting the prepared clips of `index`; null when nothing does."""
    ours, theirs = model.labels.label_names, index.labels.label_names
    if ours != theirs:
        return f"its labels ({_shortened(ours)}) are not those of the prepared clips ({_shortened(theirs)})"
    if model.stage.special_tokens != index.special_tokens:
        own, prepared = (", ".join(tokens) for tokens in (model.stage.special_tokens, index.special_tokens))
        return f"its special tokens ({own}) are not those of the prepared clips ({prepared})"
    if video_meaning(model.config.video) != video_meaning(index.video):
        return f"its video settings ({model.config.video}) are not those of the prepared clips ({index.video})"
    return None


def why_other_inputs(model: LoadedModel, other: LoadedModel) -> str | None:
    """What makes inputs prepared for one model unfit for the other; null when nothing does."""
    ours, theirs = (loaded.processor.processor for loaded in (model, other))
    if type(ours) is not type(theirs):
        return f"its processor is a {type(ours).__name__}, the new model's a {type(theirs).__name__}"
    if ours.tokenizer.get_vocab() != theirs.tokenizer.get_vocab():
        return "its tokenizer is not the new model's"
    if ours.video_processor.to_dict() != theirs.video_processor.to_dict():
        return "its video processor is not set like the new model's"
    return None


def compare_with_champion(
    champion: Champion,
    *,
    model: LoadedModel,
    index: PreparedIndex,
    test_fingerprint: str,
    machine: ModelConfig,
    device: str,
    measure_top1: Callable[[LoadedModel], float],
) -> ChampionComparison:
    """The champion's accuracy on the present test split: as recorded, or else measured by `measure_top1`.

    `model` is the new one: clips that were prepared for it must fit the champion too.
    """
    if champion.test_fingerprint == test_fingerprint and champion.top1_accuracy is not None:
        return _compared(champion, "recorded on the same test split", recorded=champion.top1_accuracy)
    try:
        loaded = load_directory(storage.local_path(champion.model_dir), machine=machine, device=device)
    except (FileNotFoundError, ModelFilesError) as error:
        return _compared(champion, f"it cannot be loaded: {error}")
    reason = why_unfit(loaded, index) or why_other_inputs(loaded, model)
    if reason is not None:
        return _compared(champion, reason)
    log.info("measuring champion %s version %d on the present test split", champion.name, champion.version)
    return _compared(champion, "measured now on the present test split", measured=measure_top1(loaded))


def decide(
    top1_accuracy: float, *, settings: EvaluationConfig, champion: ChampionComparison | None, model_alias: str
) -> GateVerdict:
    """The verdict on a model, with one reason per rule."""
    enough = top1_accuracy >= settings.min_top1_accuracy
    reasons = [
        f"top-1 accuracy {top1_accuracy:.3f} {'reaches' if enough else 'is below'} "
        f"min_top1_accuracy {settings.min_top1_accuracy:.3f}"
    ]
    if champion is None or champion.top1_accuracy is None:
        reasons.append(_why_only_the_minimum_counts(settings, champion, model_alias))
        return GateVerdict(passed=enough, reasons=tuple(reasons))
    lowest = champion.top1_accuracy - settings.champion_tolerance
    not_worse = top1_accuracy >= lowest - 1e-9  # tolerances are decimal fractions, accuracies are not
    reasons.append(
        f"{'not worse' if not_worse else 'worse'} than champion {champion.name} version {champion.version} with "
        f"{champion.top1_accuracy:.3f} ({champion.detail}), champion_tolerance {settings.champion_tolerance:.3f}"
    )
    return GateVerdict(passed=enough and not_worse, reasons=tuple(reasons))


def _compared(
    champion: Champion, detail: str, *, recorded: float | None = None, measured: float | None = None
) -> ChampionComparison:
    how = "recorded" if recorded is not None else "evaluated" if measured is not None else "not_comparable"
    return ChampionComparison(
        name=champion.name,
        version=champion.version,
        how=how,
        top1_accuracy=recorded if recorded is not None else measured,
        detail=detail,
    )


def _why_only_the_minimum_counts(
    settings: EvaluationConfig, champion: ChampionComparison | None, model_alias: str
) -> str:
    if not settings.compare_with_champion:
        return "not compared with a champion: compare_with_champion is false"
    if champion is None:
        return f"no registered model has the alias {model_alias} yet: only the minimum decides"
    return (
        f"champion {champion.name} version {champion.version} is not comparable: {champion.detail}; "
        "only the minimum decides"
    )


def _shortened(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:5])
    return f"{len(names)}: {shown}{', …' if len(names) > 5 else ''}"
