"""The gate: whether a model may be exported and deployed."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from ivcp import storage
from ivcp.data.seen_clips import SEEN_CLIPS_FILE
from ivcp.evaluation.predict import PredictedSplit
from ivcp.inference.finite import NonFiniteError
from ivcp.models.backbone_files import ModelFilesError
from ivcp.records import PreparedIndex
from ivcp.records.baselines import UNTRAINED, Baseline
from ivcp.records.evaluation import ChampionComparison, GateVerdict, LeftOut, SplitMetrics
from ivcp.settings import EvaluationConfig, ModelConfig, video_meaning
from ivcp.stages.directory import load_directory
from ivcp.stages.loaded_model import LoadedModel
from ivcp.tracking import Champion

log = logging.getLogger(__name__)


def split_fingerprint(predicted: PredictedSplit, *, prepared_fingerprint: str, knows_what_it_saw: bool = True) -> str:
    """A hash of the clips that were measured, their labels and how they were prepared; failed clips belong to it.

    Clips that a model has seen are not measured: two models with equal hashes were measured on the same unseen clips.
    """
    rows = [[clip_id, int(label)] for clip_id, label in zip(predicted.clip_ids, predicted.labels, strict=True)]
    rows += [[clip.clip_id, clip.label] for clip in predicted.failed]
    history = "unseen" if knows_what_it_saw else "not known"
    return hashlib.sha256(json.dumps([history, prepared_fingerprint, sorted(rows)]).encode()).hexdigest()[:32]


def why_unfit(model: LoadedModel, index: PreparedIndex) -> str | None:
    """What keeps `model` from predicting the prepared clips of `index`; null when nothing does."""
    ours, theirs = model.labels.label_names, index.classes.label_names
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


@dataclass(frozen=True)
class OnSameClips:
    """Two models on the clips that neither has seen."""

    champion_top1: float
    new_top1: float
    num_clips: int
    left_out: LeftOut
    """What the champion has seen of the clips that the new model was measured on."""


def compare_with_champion(
    champion: Champion,
    *,
    model: LoadedModel,
    index: PreparedIndex,
    measured: SplitMetrics,
    test_fingerprint: str,
    machine: ModelConfig,
    device: str,
    measure_both: Callable[[LoadedModel], OnSameClips | None],
) -> ChampionComparison:
    """The champion's accuracy on the present test split: as recorded, or else measured by `measure_both`.

    `model` is the new one, and `measured` its numbers: clips that were prepared for it must fit the champion too. What
    was recorded counts where it is of the very same clips. A champion of which it is not known what it has seen may
    remember the test clips, and decides nothing.
    """
    if champion.test_fingerprint == test_fingerprint and champion.top1_accuracy is not None:
        both = OnSameClips(champion.top1_accuracy, measured.top1_accuracy, measured.num_clips, LeftOut())
        return _compared(champion, "recorded", both, "recorded on the same clips")
    try:
        loaded = load_directory(storage.local_path(champion.model_dir), machine=machine, device=device)
    except (FileNotFoundError, ModelFilesError) as error:
        return _not_comparable(champion, f"it cannot be loaded: {error}")
    reason = why_unfit(loaded, index) or why_other_inputs(loaded, model) or _why_not_trusted(loaded)
    if reason is not None:
        return _not_comparable(champion, reason)
    log.info("measuring champion %s version %d on the present test split", champion.name, champion.version)
    try:
        found = measure_both(loaded)
    except NonFiniteError as error:
        return _not_comparable(champion, str(error))
    if found is None:
        return _not_comparable(champion, "it has seen all clips of the test split")
    left_out = f"; left out are {found.left_out.words} that the champion has seen" if found.left_out.total else ""
    return _compared(champion, "evaluated", found, f"measured now on the same {found.num_clips} clips{left_out}")


def _why_not_trusted(champion: LoadedModel) -> str | None:
    if champion.seen.is_complete:
        return None
    return (
        f"it is not known what it has seen (an earlier version wrote it or a model that it comes from, without "
        f"{SEEN_CLIPS_FILE}), so that its figure may be too high"
    )


def decide(
    top1_accuracy: float,
    *,
    settings: EvaluationConfig,
    champion: ChampionComparison | None,
    model_alias: str,
    knows_what_it_saw: bool = True,
    baselines: Sequence[Baseline] = (),
) -> GateVerdict:
    """The verdict on a model, with one reason per rule."""
    enough = _reaches(top1_accuracy, settings.min_top1_accuracy)
    reasons = [
        f"top-1 accuracy {top1_accuracy:.3f} {'reaches' if enough else 'is below'} "
        f"min_top1_accuracy {settings.min_top1_accuracy:.3f}"
    ]
    if not knows_what_it_saw:
        reasons.append(
            f"it is not known what the model has seen ({SEEN_CLIPS_FILE} is missing in its directory, or in that of a "
            "model it comes from), so that this figure may be too high: train it anew with this version"
        )
    gains = None if settings.min_gain_over_baselines is None else _gains(baselines, settings.min_gain_over_baselines)
    reasons += [reason for reason, _ in gains or ()]
    passed = enough and knows_what_it_saw and all(is_enough for _, is_enough in gains or ())
    if champion is None or champion.top1_accuracy is None:
        reasons.append(_why_only_the_minimum_counts(settings, champion, model_alias))
        return GateVerdict(passed=passed, reasons=tuple(reasons))
    new = top1_accuracy if champion.new_top1_accuracy is None else champion.new_top1_accuracy
    lowest = champion.top1_accuracy - settings.champion_tolerance
    not_worse = _reaches(new, lowest - 1e-9)  # tolerances are decimal fractions, accuracies are not
    own = f"{new:.3f} on them is " if champion.left_out.total else ""
    reasons.append(
        f"{own}{'not worse' if not_worse else 'worse'} than champion {champion.name} version {champion.version} with "
        f"{champion.top1_accuracy:.3f} ({champion.detail}), champion_tolerance {settings.champion_tolerance:.3f}"
    )
    return GateVerdict(passed=passed and not_worse, reasons=tuple(reasons))


def _gains(baselines: Sequence[Baseline], lowest: float) -> list[tuple[str, bool]]:
    """Of each baseline without the trained model: what to say, and whether the model is better by enough.

    One that could not be measured decides nothing; where none could, the model does not pass.
    """
    found = []
    for baseline in baselines:
        if baseline.kind in UNTRAINED and baseline.gain is not None:
            is_enough = _reaches(baseline.gain, lowest - 1e-9)
            found.append(
                (
                    f"{'better' if baseline.gain >= 0 else 'worse'} by {abs(baseline.gain):.3f} than {baseline.words} "
                    f"({baseline.top1_accuracy:.3f}), which {'is' if is_enough else 'is not'} "
                    f"min_gain_over_baselines {lowest:.3f}",
                    is_enough,
                )
            )
    return found or [("min_gain_over_baselines is set, and no baseline was measured: see baselines", False)]


def _reaches(accuracy: float, lowest: float) -> bool:
    """Whether an accuracy is as high, and both are numbers: nothing follows from a comparison with NaN."""
    return math.isfinite(accuracy) and math.isfinite(lowest) and accuracy >= lowest


def _compared(
    champion: Champion, how: Literal["recorded", "evaluated"], both: OnSameClips, detail: str
) -> ChampionComparison:
    return ChampionComparison(
        name=champion.name,
        version=champion.version,
        how=how,
        top1_accuracy=both.champion_top1,
        new_top1_accuracy=both.new_top1,
        num_clips=both.num_clips,
        left_out=both.left_out,
        detail=detail,
    )


def _not_comparable(champion: Champion, detail: str) -> ChampionComparison:
    return ChampionComparison(
        name=champion.name, version=champion.version, how="not_comparable", top1_accuracy=None, detail=detail
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
