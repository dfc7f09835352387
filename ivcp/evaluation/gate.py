"""The gate: whether a model may be exported and deployed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from ivcp.data.seen_clips import SEEN_CLIPS_FILE
from ivcp.evaluation.champion import against, reaches, why_alone
from ivcp.evaluation.predict import PredictedSplit
from ivcp.records import PreparedIndex
from ivcp.records.baselines import UNTRAINED, Baseline
from ivcp.records.comparison import ChampionComparison, Flips
from ivcp.records.evaluation import GateVerdict
from ivcp.settings import EvaluationConfig, video_meaning
from ivcp.stages.loaded_model import LoadedModel

_KINDS = {"class": "one class", "classes": "several classes", "heads": "a class of each head", "value": "a number"}


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
    if model.labels.kind != index.classes.kind:
        return (
            f"it tells {_KINDS[model.labels.kind]} of a clip, and the prepared clips are labelled with "
            f"{_KINDS[index.classes.kind]} (problem_type, action_heads)"
        )
    ours, theirs = model.labels.label_names, index.classes.label_names
    if ours != theirs:
        return f"its labels ({_shortened(ours)}) are not those of the prepared clips ({_shortened(theirs)})"
    if model.stage.special_tokens != index.special_tokens:
        own, prepared = (", ".join(tokens) for tokens in (model.stage.special_tokens, index.special_tokens))
        return f"its special tokens ({own}) are not those of the prepared clips ({prepared})"
    if video_meaning(model.config.video) != video_meaning(index.video):
        return f"its video settings ({model.config.video}) are not those of the prepared clips ({index.video})"
    return None


def decide(
    top1_accuracy: float,
    *,
    settings: EvaluationConfig,
    champion: ChampionComparison | None,
    model_alias: str,
    knows_what_it_saw: bool = True,
    baselines: Sequence[Baseline] = (),
    calibration_error: float | None = None,
) -> GateVerdict:
    """The verdict on a model, with one reason per rule; `calibration_error` is that of the served confidence."""
    enough = reaches(top1_accuracy, settings.min_top1_accuracy)
    reasons = [
        f"top-1 accuracy {top1_accuracy:.3f} {'reaches' if enough else 'is below'} "
        f"min_top1_accuracy {settings.min_top1_accuracy:.3f}"
    ]
    if not knows_what_it_saw:
        reasons.append(
            f"it is not known what the model has seen ({SEEN_CLIPS_FILE} is missing in its directory, or in that of a "
            "model it comes from), so that this figure may be too high: train it anew with this version"
        )
    rules: list[tuple[str, bool]] = []
    if settings.min_gain_over_baselines is not None:
        rules += _gains(baselines, settings.min_gain_over_baselines)
    if settings.max_calibration_error is not None:
        rules.append(_calibrated(calibration_error, settings.max_calibration_error))
    if settings.champion_class_tolerance is not None and champion is not None and champion.flips is not None:
        rules.append(_classes(champion.flips, settings.champion_class_tolerance))
    reasons += [reason for reason, _ in rules]
    passed = enough and knows_what_it_saw and all(is_enough for _, is_enough in rules)
    if champion is None or champion.top1_accuracy is None:
        reasons.append(why_alone(settings, champion, model_alias=model_alias, decides="only the minimum decides"))
        return GateVerdict(passed=passed, reasons=tuple(reasons))
    new = top1_accuracy if champion.new_top1_accuracy is None else champion.new_top1_accuracy
    lowest = champion.top1_accuracy - settings.champion_tolerance
    not_worse = reaches(new, lowest - 1e-9)  # tolerances are decimal fractions, accuracies are not
    own = f"{new:.3f} on them is " if champion.left_out.total else ""
    reasons.append(own + against(champion, f"{champion.top1_accuracy:.3f}", settings, passes=not_worse))
    return GateVerdict(passed=passed and not_worse, reasons=tuple(reasons))


def _gains(baselines: Sequence[Baseline], lowest: float) -> list[tuple[str, bool]]:
    """Of each baseline without the trained model: what to say, and whether the model is better by enough.

    One that could not be measured decides nothing; where none could, the model does not pass.
    """
    found = []
    for baseline in baselines:
        if baseline.kind in UNTRAINED and baseline.gain is not None:
            is_enough = reaches(baseline.gain, lowest - 1e-9)
            found.append(
                (
                    f"{'better' if baseline.gain >= 0 else 'worse'} by {abs(baseline.gain):.3f} than {baseline.words} "
                    f"({baseline.top1_accuracy:.3f}): {'reaches' if is_enough else 'is below'} "
                    f"min_gain_over_baselines {lowest:.3f}",
                    is_enough,
                )
            )
    return found or [("min_gain_over_baselines is set, and no baseline was measured: see baselines", False)]


def _calibrated(error: float | None, highest: float) -> tuple[str, bool]:
    if error is None:
        return "max_calibration_error is set, and no confidence was measured: no clip could be decoded", False
    fine = reaches(error, highest + 1e-9, less_is_better=True)
    does = "is within" if fine else "exceeds"
    return f"expected calibration error {error:.3f} {does} max_calibration_error {highest:.3f}", fine


def _classes(flips: Flips, tolerance: float) -> tuple[str, bool]:
    """Whether each class is recognised about as often as by the champion, and which are not."""
    worse = {
        each.label_name: (each.num_lost - each.num_gained) / each.num_clips
        for each in flips.classes
        if each.num_clips and each.num_lost - each.num_gained > (tolerance + 1e-9) * each.num_clips
    }
    if not worse:
        return (
            f"no class is recognised less often than by the champion, but for champion_class_tolerance {tolerance:.3f}",
            True,
        )
    names = ", ".join(f"{name} by {less:.3f}" for name, less in sorted(worse.items(), key=lambda item: -item[1]))
    return (
        f"recognised less often than by the champion, beyond champion_class_tolerance {tolerance:.3f}: {names}",
        False,
    )


def _shortened(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:5])
    return f"{len(names)}: {shown}{', …' if len(names) > 5 else ''}"
