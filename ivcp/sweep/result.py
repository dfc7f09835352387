"""What a sweep found: `sweep.json`."""

from __future__ import annotations

import math
from typing import Any, Literal, Self

from ivcp.records import Record

SWEEP_FILE, BEST_FILE = "sweep.json", "best.yaml"
TrialState = Literal["complete", "pruned", "failed"]
_ORDER: tuple[TrialState, ...] = ("complete", "pruned", "failed")


class TrialResult(Record):
    """One trial of a sweep."""

    number: int
    settings: dict[str, Any]
    """What was searched."""
    state: TrialState
    """Pruned is one that was given up."""
    value: float | None
    """Its best validation; null where there was none."""
    step: int | None = None
    """Optimizer steps before it."""


class SweepResult(Record):
    """`sweep.json`: what was searched, and all trials that have ended, the best first."""

    metric: str
    less_is_better: bool
    space: dict[str, str]
    """As on the command line."""
    settings: dict[str, Any]
    """What all trials have."""
    trials: tuple[TrialResult, ...] = ()

    @property
    def best(self) -> TrialResult | None:
        """The best trial that came to its end."""
        return next((trial for trial in self.trials if trial.state == "complete"), None)

    def with_trial(self, ended: TrialResult) -> Self:
        """The same with one trial more."""
        sign = 1 if self.less_is_better else -1

        def place(trial: TrialResult) -> tuple[int, float, int]:
            value = math.inf if trial.value is None else sign * trial.value
            return _ORDER.index(trial.state), value, trial.number

        return self.model_copy(update={"trials": tuple(sorted((*self.trials, ended), key=place))})
