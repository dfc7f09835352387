"""From which probability on a class is shown, where a clip may show several: `thresholds.json` beside the weights."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from ivcp.records.annotations import Split
from ivcp.records.record import VersionedRecord

THRESHOLDS_FILE = "thresholds.json"


class Thresholds(VersionedRecord):
    """`thresholds.json`, which evaluation fits on validation clips."""

    format_version: int = 1
    thresholds: tuple[float, ...]
    """Of each class, by label: it is shown where its probability reaches this."""
    num_positive: tuple[int, ...]
    """Clips with each class among those that they were fitted on; too few leave a threshold at 0.5."""
    split: Split
    num_clips: int
    """Of that split: decoded, and none that the model was trained on."""
    f1_macro_before: float
    """On these clips, with 0.5 for all classes."""
    f1_macro: float
    """On these clips: too good, for the thresholds were chosen on them."""

    @model_validator(mode="after")
    def _of_the_same_classes(self) -> Self:
        if len(self.thresholds) != len(self.num_positive):
            raise ValueError("expected as many thresholds as num_positive")
        return self

    @property
    def summary(self) -> str:
        """What was fitted, in a few words."""
        return (
            f"thresholds of {len(self.thresholds)} classes from {self.num_clips} clips of the {self.split} split: "
            f"macro F1 there {self.f1_macro_before:.3f} before, {self.f1_macro:.3f} after"
        )
