"""The gate of models that write, or that tell answers apart: one metric of one's choice, and the champion."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ivcp.data.seen_clips import SEEN_CLIPS_FILE
from ivcp.evaluation.champion import against, reaches, why_alone
from ivcp.records.comparison import MetricComparison
from ivcp.records.evaluation import GateVerdict
from ivcp.settings import ConfigError, EvaluationConfig
from ivcp.settings.sections.evaluation import LESS_IS_BETTER

_SHARES = frozenset({"exact_match", "token_f1", "token_accuracy", "accuracy", "rewards/accuracies"})
_OF_TARGETS = (
    *("accuracy", "mean_average_precision", "f1_micro", "f1_macro", "precision_micro", "recall_micro"),
    *("r2", "spearman"),
)
"""Ends of the names of figures of several classes, heads and numbers that have 1 as their best."""
_NOT_ALWAYS_DEFINED = frozenset({"r2", "spearman"})
"""Where all numbers, or all answers, are the same they are not there: no fault of the settings."""
_OUT_OF_100 = frozenset({"bleu-4", "rouge-1", "rouge-2", "rouge-l", "sacrebleu"})
_ROUNDING = 1e-6
"""Share of a figure by which two computations of it may differ."""


def decide_by_metric(
    numbers: Mapping[str, float],
    *,
    settings: EvaluationConfig,
    num_measured: int,
    champion: MetricComparison | None,
    model_alias: str,
    knows_what_it_saw: bool = True,
) -> GateVerdict:
    """The verdict on a model with these numbers, from so many clips, with one reason per rule.

    Raises:
        ConfigError: `gate_metric` is none of them.
    """
    reasons, passed = [], True
    is_compared = champion is not None and champion.value is not None
    if num_measured == 0:
        passed = False
        reasons.append("no clip could be measured: see the quarantine, or what the model has seen")
    elif settings.gate_metric is None:
        meaning = "the champion alone decides" if is_compared else "every model passes"
        reasons.append(f"no gate_metric is set: {meaning}")
    else:
        passed, reason = _compare(numbers, settings.gate_metric, settings)
        reasons.append(reason)
    if champion is not None and is_compared:
        is_fine, reason = _against_champion(champion, settings)
        passed &= is_fine
        reasons.append(reason)
    else:
        decides = "nothing decides" if settings.gate_metric is None else "gate_metric alone decides"
        reasons.append(why_alone(settings, champion, model_alias=model_alias, decides=decides))
    if not knows_what_it_saw:
        reasons.append(
            f"it is not known what the model has seen ({SEEN_CLIPS_FILE} is missing in its directory, or in that of a "
            "model it comes from), so that its numbers may be too good: train it anew with this version"
        )
    return GateVerdict(passed=passed and knows_what_it_saw, reasons=tuple(reasons))


def _compare(numbers: Mapping[str, float], metric: str, settings: EvaluationConfig) -> tuple[bool, str]:
    if metric not in numbers and metric in _NOT_ALWAYS_DEFINED:
        return False, f"{metric} is not defined: all clips have the same number, or all answers are the same"
    if metric not in numbers:
        raise ConfigError(
            f"gate_metric: {metric} was not measured; what was is {', '.join(numbers) or 'nothing: no clip is left'}"
        )
    value = numbers[metric]
    if settings.gate_maximum is not None:
        fine = math.isfinite(value) and value <= settings.gate_maximum
        return fine, f"{metric} {value:.4g} {'is within' if fine else 'exceeds'} gate_maximum {settings.gate_maximum:g}"
    assert settings.gate_minimum is not None
    fine = math.isfinite(value) and value >= settings.gate_minimum
    return fine, f"{metric} {value:.4g} {'reaches' if fine else 'is below'} gate_minimum {settings.gate_minimum:g}"


def _against_champion(champion: MetricComparison, settings: EvaluationConfig) -> tuple[bool, str]:
    metric, theirs, ours = champion.metric, champion.value, champion.new_value
    assert metric is not None
    assert theirs is not None
    assert ours is not None
    less_is_better = metric in LESS_IS_BETTER
    scale = (
        1.0 if metric in _SHARES or metric.endswith(_OF_TARGETS) else 100.0 if metric in _OUT_OF_100 else abs(theirs)
    )
    allowed = settings.champion_tolerance * scale + _ROUNDING * abs(theirs)
    fine = reaches(ours, theirs + allowed if less_is_better else theirs - allowed, less_is_better=less_is_better)
    where = " on them" if champion.left_out.total else ""
    return fine, f"{metric} {ours:.4g}{where} is {against(champion, f'{theirs:.4g}', settings, passes=fine)}"
