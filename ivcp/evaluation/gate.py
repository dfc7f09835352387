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
from ivcp.records.evaluation import ChampionComparison, GateVerdict
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
) -> GateVerdict:
    """The verdict on a model, with one reason per rule."""
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
    gains = None if settings.min_gain_over_baselines is None else _gains(baselines, settings.min_gain_over_baselines)
    reasons += [reason for reason, _ in gains or ()]
    passed = enough and knows_what_it_saw and all(is_enough for _, is_enough in gains or ())
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


def _shortened(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:5])
    return f"{len(names)}: {shown}{', …' if len(names) > 5 else ''}"
