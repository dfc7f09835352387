"""Several trainings as one result: folds, seeds, or official splits."""

from __future__ import annotations

import statistics
from typing import Literal

from ivcp.records.baselines import Interval
from ivcp.records.evaluation import ClassMetrics
from ivcp.records.record import Record
from ivcp.records.slices import Slice

SERIES_FILE = "series.json"
SeriesKind = Literal["folds", "seeds", "official_splits"]


class MemberResult(Record):
    """One of the trainings."""

    name: str
    """For example `fold-2`, `seed-7`, or the data set."""
    run_dir: str
    report: str
    mlflow_run_id: str
    num_clips: int
    """Of its test split, failed ones included."""
    num_failed: int
    top1_accuracy: float
    interval: Interval | None
    top5_accuracy: float
    mean_class_accuracy: float
    majority_baseline: float
    val_top1_accuracy: float | None
    """Of the model that was kept; null without a validation split."""
    baselines: dict[str, float]
    """Top-1 accuracy of what it was compared with, by name."""
    views_top1_accuracy: float | None = None
    """In several views; null where none were asked for."""


class SeriesResult(Record):
    """`series.json`."""

    kind: SeriesKind
    members: tuple[MemberResult, ...]
    views: str
    """Temporal and spatial views of a clip that the figures are of."""
    more_views: str = ""
    """Those of `views_top1_accuracy`; empty where none were asked for."""
    num_clips: int
    """Clips that were tested, each counted once for folds and seeds; for official splits those of all of them."""
    num_failed: int
    num_groups: int
    """Groups that intervals are resampled by."""
    top1_accuracy: float
    """Of folds over all clips; else the mean."""
    top1_interval: Interval | None
    top5_accuracy: float
    mean_class_accuracy: float
    mean_class_interval: Interval | None
    majority_baseline: float
    classes: tuple[ClassMetrics, ...]
    """Over all predictions of all trainings."""
    confusion_matrix: tuple[tuple[int, ...], ...]
    """Likewise: decoded clips by true class (row) and predicted class (column)."""
    slices: tuple[Slice, ...]
    """Of folds; empty else."""
    chosen: str = ""
    """The training whose model goes on to the export; empty where none does."""
    why: str
    """Why that one, or why none."""
    seconds: float
    """Of this call."""

    @property
    def top1_mean(self) -> float:
        """Mean over the trainings."""
        return statistics.fmean(member.top1_accuracy for member in self.members)

    @property
    def top1_spread(self) -> float:
        """Standard deviation over the trainings."""
        return statistics.stdev(member.top1_accuracy for member in self.members)

    @property
    def mean_class_spread(self) -> float:
        """Standard deviation over the trainings."""
        return statistics.stdev(member.mean_class_accuracy for member in self.members)

    @property
    def title(self) -> str:
        """What it is, in a few words."""
        words = {"folds": "folds", "seeds": "seeds", "official_splits": "official splits"}
        return f"{len(self.members)} {words[self.kind]}"

    @property
    def baseline_means(self) -> dict[str, float]:
        """Mean over the trainings of what each was compared with; of what all were compared with."""
        names = [name for name in self.members[0].baselines if all(name in m.baselines for m in self.members)]
        return {name: statistics.fmean(member.baselines[name] for member in self.members) for name in names}

    @property
    def summary(self) -> str:
        """What it came to, in one line."""
        between = f" (95 %: {self.top1_interval.words})" if self.top1_interval else ""
        return (
            f"{self.title}: top-1 {self.top1_accuracy:.3f}{between}, standard deviation {self.top1_spread:.3f}, on "
            f"{self.num_clips} clips of {self.num_groups} groups"
        )

    def headline(self) -> dict[str, float]:
        """The numbers for MLflow, by name."""
        numbers: dict[str, float | None] = {
            "top1_accuracy": self.top1_accuracy,
            "top1_accuracy_low": self.top1_interval.low if self.top1_interval else None,
            "top1_accuracy_high": self.top1_interval.high if self.top1_interval else None,
            "top1_accuracy_mean": self.top1_mean,
            "top1_accuracy_spread": self.top1_spread,
            "top5_accuracy": self.top5_accuracy,
            "mean_class_accuracy": self.mean_class_accuracy,
            "mean_class_accuracy_spread": self.mean_class_spread,
            "majority_baseline": self.majority_baseline,
            "num_clips": float(self.num_clips),
            "num_failed": float(self.num_failed),
        }
        if self.more_views:
            name = f"views_{self.more_views.replace(' ', '')}_top1_accuracy"
            numbers[name] = statistics.fmean(member.views_top1_accuracy or 0.0 for member in self.members)
        numbers |= {f"baseline_{name}_top1_accuracy": value for name, value in self.baseline_means.items()}
        return {name: value for name, value in numbers.items() if value is not None}
