"""What evaluation measured of a model whose answer about a clip is not one class, as its `metrics.json` holds it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ivcp.records.baselines import Interval
from ivcp.records.comparison import MetricComparison
from ivcp.records.evaluation import Disturbance, MeasuredModel, Shown
from ivcp.records.problem_types import TargetKind, TargetScale
from ivcp.records.record import Record
from ivcp.records.thresholds import Thresholds

CONFUSION_OF_HEAD = "confusion_matrix_{number}.png"
SCATTER_FILE = "predicted_values.png"
_WORDS = {
    "mean_average_precision": "mean average precision (mAP)",
    "f1_micro": "micro F1",
    "f1_macro": "macro F1",
    "precision_micro": "micro precision",
    "recall_micro": "micro recall",
    "exact_match": "all classes of a clip right",
    "joint_accuracy": "all heads right",
    "mae": "mean absolute error",
    "rmse": "root mean squared error",
    "r2": "R²: share of the variance that is explained",
    "spearman": "Spearman's rank correlation",
}
_TOP1, _MEAN_CLASS = "_top1_accuracy", "_mean_class_accuracy"


class TargetClass(Record):
    """One line of the per-class table, of a class that may be shown beside others, or of a head's."""

    label_name: str
    average_precision: float | None = None
    """Null where no clip has the class, and of heads."""
    threshold: float | None = None
    """Null of heads."""
    precision: float
    recall: float
    f1: float
    support: int
    """Clips of this class, failed ones included."""
    num_failed: int


class TargetPrediction(Record):
    """One row of `predictions.jsonl`; what is not of the model's kind is null."""

    clip_id: str
    video: str
    label_names: tuple[str, ...] | None = None
    """The classes of the clip, with heads that of each."""
    predicted_names: tuple[str, ...] | None = None
    """Null for a clip that could not be decoded."""
    value: float | None = None
    predicted_value: float | None = None
    probabilities: tuple[float, ...] = ()
    """Of all classes, by label; empty of a number, and of a clip that could not be decoded."""
    logits: tuple[float, ...] = ()


class TargetMetrics(MeasuredModel):
    """`metrics.json` of a model that tells several classes, a class of each head, or a number."""

    kind: Literal["targets"] = "targets"
    """What tells it from that of one class."""
    target: TargetKind
    loss: float | None
    """As validation has it; null where no clip was decoded."""
    metrics: dict[str, float]
    """Clips that could not be decoded count as errors, but of a number: they are in none of its figures."""
    constant: dict[str, float] = Field(default_factory=dict)
    """The same, where it says something, of an answer that does not look at the clip: all classes by their share of
    the training clips, the most frequent class of each head, or the mean of the training clips."""
    intervals: dict[str, Interval] = Field(default_factory=dict)
    """By the bootstrap over groups of clips, of those figures that it is good for."""
    num_groups: int = 0
    classes: tuple[TargetClass, ...] = ()
    confusion_matrices: dict[str, tuple[tuple[int, ...], ...]] = Field(default_factory=dict)
    """Of each head: decoded clips by true class (row) and predicted class (column)."""
    heads: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """The classes of each head."""
    thresholds: Thresholds | None = None
    """What the model is served with; null where none could be fitted, or there is nothing to fit."""
    why_no_thresholds: str = ""
    scale: TargetScale | None = None
    """Of a number."""
    unit: str = ""
    """The column that holds the number."""
    prompt: str = ""
    """What was asked about every clip, as the predictor asks it."""
    disturbed: dict[Disturbance, dict[str, float]] = Field(default_factory=dict)
    """The same figures with disturbed frames, where `disturb_frames` asks for it."""
    champion: MetricComparison | None = None

    @property
    def numbers(self) -> dict[str, float]:
        """All of them by the names that `gate_metric` knows."""
        return self.metrics | ({} if self.loss is None else {"loss": self.loss})

    @property
    def names(self) -> tuple[str, ...]:
        """Those of `numbers`, the most telling one first."""
        return tuple(self.numbers)

    @property
    def shown(self) -> tuple[Shown, ...]:
        """What the command line and the report show."""
        return tuple(
            Shown(words_of(name), self.numbers[name], interval=self.intervals.get(name)) for name in self.names
        )

    @property
    def calibration(self) -> None:
        """Temperatures are of one class."""
        return None

    @property
    def summary(self) -> str:
        """What it came to, in one line."""
        named = ", ".join(f"{measure.words} {measure.value:.3f}" for measure in self.shown[:3])
        return f"{named or 'nothing'} on {self.num_clips} clips{self.caveats}"

    def headline(self) -> dict[str, float]:
        """The numbers for MLflow and the registry, by name."""
        bounds = {
            f"{name}_{side}": getattr(interval, side)
            for name, interval in self.intervals.items()
            for side in ("low", "high")
        }
        disturbed = {f"{kind}_{name}": value for kind, found in self.disturbed.items() for name, value in found.items()}
        constant = {f"constant_{name}": value for name, value in self.constant.items()}
        counts = {"num_clips": self.num_clips, "num_failed": self.num_failed, "num_left_out": self.left_out.total}
        return self.numbers | bounds | disturbed | constant | {name: float(value) for name, value in counts.items()}


def words_of(metric: str) -> str:
    """A metric as people call it."""
    if metric.endswith(_TOP1):
        return f"top-1 accuracy of {metric.removesuffix(_TOP1)}"
    if metric.endswith(_MEAN_CLASS):
        return f"mean-class accuracy of {metric.removesuffix(_MEAN_CLASS)}"
    return _WORDS.get(metric, metric)
