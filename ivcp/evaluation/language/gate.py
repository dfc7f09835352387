"""The gate of models that write: one metric of one's choice."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ivcp.data.seen_clips import SEEN_CLIPS_FILE
from ivcp.records.evaluation import GateVerdict
from ivcp.settings import ConfigError, EvaluationConfig


def decide_by_metric(
    numbers: Mapping[str, float], *, settings: EvaluationConfig, num_measured: int, knows_what_it_saw: bool = True
) -> GateVerdict:
    """The verdict on a model with these numbers, from so many clips, with one reason per rule.

    Raises:
        ConfigError: `gate_metric` is none of them.
    """
    reasons, passed = [], True
    if num_measured == 0:
        passed = False
        reasons.append("no clip could be measured: see the quarantine, or what the model has seen")
    elif settings.gate_metric is None:
        reasons.append("no gate_metric is set: every model passes")
    else:
        passed, reason = _compare(numbers, settings.gate_metric, settings)
        reasons.append(reason)
    if settings.compare_with_champion:
        reasons.append("not compared with a champion: classifiers alone are")
    if not knows_what_it_saw:
        reasons.append(
            f"it is not known what the model has seen ({SEEN_CLIPS_FILE} is missing in its directory, or in that of a "
            "model it comes from), so that its numbers may be too good: train it anew with this version"
        )
    return GateVerdict(passed=passed and knows_what_it_saw, reasons=tuple(reasons))


def _compare(numbers: Mapping[str, float], metric: str, settings: EvaluationConfig) -> tuple[bool, str]:
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
