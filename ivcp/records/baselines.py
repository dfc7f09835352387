"""What a classifier is compared with: answers that cost no training, on the same clips."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from ivcp.records.record import Record

BaselineKind = Literal["majority", "middle", "shuffled", "linear_probe_8", "linear_probe", "zero_shot"]
"""In the order in which people are shown them."""

BASELINE_WORDS: dict[BaselineKind, str] = {
    "majority": "always the most frequent class",
    "middle": "this model, the middle frame alone",
    "shuffled": "this model, frames shuffled",
    "linear_probe_8": "linear probe on the base model, 8 clips per class",
    "linear_probe": "linear probe on the base model, all clips",
    "zero_shot": "the base model asked in words",
}
UNTRAINED: tuple[BaselineKind, ...] = ("majority", "linear_probe_8", "linear_probe", "zero_shot")
"""Those without the trained model: what a user could have had in its place."""


class Interval(Record):
    """Bounds of a figure, between which it lies in 95 of 100 such test sets."""

    low: float
    high: float

    @property
    def words(self) -> str:
        """For example "90.3 – 95.7 %"."""
        return f"{100 * self.low:.1f} – {100 * self.high:.1f} %"

    @model_validator(mode="after")
    def _is_in_order(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"expected low <= high, got {self.low} and {self.high}")
        return self


class Baseline(Record):
    """One of them; shares from 0 to 1."""

    kind: BaselineKind
    top1_accuracy: float | None
    """Null where it could not be measured: `detail` says why."""
    interval: Interval | None = None
    num_clips: int = 0
    """Clips that it was measured on: those of the test split, or a fixed draw of them."""
    gain: float | None = None
    """Top-1 accuracy of the trained model on the same clips, less this."""
    gain_interval: Interval | None = None
    spread: float | None = None
    """Standard deviation over draws of its training clips; null without draws."""
    detail: str = ""
    """How it was measured, or why it was not."""

    @property
    def words(self) -> str:
        """What it is."""
        return BASELINE_WORDS[self.kind]
