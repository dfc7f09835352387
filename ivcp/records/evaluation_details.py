"""What the evaluation report says besides the figures, as its `report.json` holds it."""

from __future__ import annotations

from typing import Any

from ivcp.records.annotations import Split
from ivcp.records.record import Record


class Curve(Record):
    """One figure of the training, by optimizer step."""

    name: str
    steps: tuple[int, ...]
    values: tuple[float, ...]


class LabelIssue(Record):
    """A clip whose label the model doubts, by confident learning: somebody should look at it."""

    clip_id: str
    video: str
    label_name: str
    suggested_name: str
    """The class that the model is confident of."""
    label_probability: float
    suggested_probability: float


class ConfusedPair(Record):
    """Clips of one class that were taken for another."""

    label_name: str
    predicted_name: str
    num_clips: int


class EvaluationDetails(Record):
    """`report.json` of an evaluation: what was trained from what, and which clips to look at."""

    base_model: str
    data_sets: tuple[str, ...]
    num_clips: dict[Split, int]
    """Prepared clips of each split."""
    settings: dict[str, Any]
    """Those that are no defaults."""
    curves: tuple[Curve, ...] = ()
    """Empty where the directory says nothing of its training."""
    confused: tuple[ConfusedPair, ...] = ()
    """The most frequent ones, the most frequent first."""
    label_issues: tuple[LabelIssue, ...] = ()
    """The most doubtful first."""
    uncertain: tuple[str, ...] = ()
    """Clips with the least difference between the two best classes, the least first."""
