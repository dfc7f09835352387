"""What several views of each clip are worth."""

from __future__ import annotations

from ivcp.records.baselines import Interval
from ivcp.records.record import Record


class MultiView(Record):
    """A classifier that is shown each clip in several views, whose logits are averaged."""

    temporal: int
    """Temporal views: frames between those of the others."""
    spatial: int
    """Spatial crops of each."""
    top1_accuracy: float
    interval: Interval | None
    top5_accuracy: float
    mean_class_accuracy: float
    gain: float
    """Top-1 accuracy above that of the single view, on the same clips."""
    gain_interval: Interval | None

    @property
    def name(self) -> str:
        """For example "3 x 1": temporal and spatial views."""
        return f"{self.temporal} x {self.spatial}"
