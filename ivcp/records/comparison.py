"""A new model beside the champion: by a figure, and clip by clip."""

from __future__ import annotations

from typing import Literal

from ivcp.records.record import Record


class LeftOut(Record):
    """Clips of a split that a model has seen, by their content or their group: they are in none of its numbers."""

    trained_on: int = 0
    selected_on: int = 0
    """Not trained on, but its checkpoint was chosen by them."""
    of: int = 0
    """Clips of the whole split."""

    @property
    def total(self) -> int:
        """All that are left out."""
        return self.trained_on + self.selected_on

    @property
    def words(self) -> str:
        """For example "32 of the 54 clips (trained on 26, selected on 6)"."""
        return f"{self.total} of the {self.of} clips (trained on {self.trained_on}, selected on {self.selected_on})"


class Comparison(Record):
    """The registered model against the new one, on clips that neither has seen."""

    name: str
    version: int
    how: Literal["recorded", "evaluated", "not_comparable"]
    """Its figure was recorded on the same test split, or measured now, or neither is possible."""
    num_clips: int = 0
    """Clips that both were measured on."""
    left_out: LeftOut = LeftOut()
    """What the champion has seen of the clips that the new model was measured on."""
    detail: str


class ClassFlips(Record):
    """Clips of one class that only one of two models recognises."""

    label_name: str
    num_gained: int
    num_lost: int
    num_clips: int = 0
    """All clips of the class that both were asked about; 0 in records from before this was noted."""


class Flip(Record):
    """A clip that only one of two models recognises."""

    clip_id: str
    video: str
    label_name: str
    champion_name: str
    """What the champion answers."""
    new_name: str


class Flips(Record):
    """Two classifiers clip by clip."""

    num_clips: int
    """Decoded clips that both were asked about."""
    num_gained: int
    """Only the new model is right."""
    num_lost: int
    """Only the champion is right."""
    p_value: float
    """McNemar's exact test, two-sided: how often chance alone makes two equally good models differ as much."""
    classes: tuple[ClassFlips, ...]
    """Those with a difference."""
    clips: tuple[Flip, ...]
    """Lost ones first; at most 50."""


class ChampionComparison(Comparison):
    """Two classifiers."""

    top1_accuracy: float | None
    """Null when not comparable."""
    new_top1_accuracy: float | None = None
    """The new model's on the same clips; null when not comparable."""
    flips: Flips | None = None
    """Null where the champion's figure was recorded, and its answers are not to be had."""


class MetricComparison(Comparison):
    """Two models by one metric."""

    metric: str | None = None
    """Null where none was measured that they can be compared by."""
    value: float | None = None
    """The champion's; null when not comparable."""
    new_value: float | None = None
    """The new model's on the same clips; null when not comparable."""
