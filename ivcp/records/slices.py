"""An accuracy broken down: the same clips by what they are."""

from __future__ import annotations

from typing import Literal

from ivcp.records.baselines import Interval
from ivcp.records.record import Record

SliceKind = Literal["dataset", "duration", "resolution", "decoding", "group"]

SLICE_WORDS: dict[SliceKind, str] = {
    "dataset": "data set",
    "duration": "duration",
    "resolution": "shorter side of the video",
    "decoding": "decoded by",
    "group": "group",
}


class Slice(Record):
    """Clips that have something in common; those of one kind are all clips, each once."""

    kind: SliceKind
    name: str
    num_clips: int
    """Failed ones included."""
    num_right: int
    top1_accuracy: float
    interval: Interval | None = None
    """Null for a single group of clips, which says nothing of others."""

    @property
    def words(self) -> str:
        """What is sliced by."""
        return SLICE_WORDS[self.kind]
