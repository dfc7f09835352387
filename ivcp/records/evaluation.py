"""What evaluation measured, as its `metrics.json` holds it; export and the pipeline read it."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Literal, Self

from ivcp.records.annotations import Split
from ivcp.records.baselines import Baseline, Interval
from ivcp.records.calibration import Calibration, ConfidenceQuality, CoveragePoint
from ivcp.records.comparison import ChampionComparison, LeftOut
from ivcp.records.record import Record
from ivcp.records.slices import Slice
from ivcp.records.views import MultiView

SMOKE_CLIP_FILE = "smoke_clip.json"

Disturbance = Literal["reversed", "shuffled", "middle"]


class ClassMetrics(Record):
    """One line of the per-class table."""

    label_name: str
    precision: float
    recall: float
    f1: float
    support: int
    """Clips of this class, failed ones included."""
    num_failed: int
    """Clips of this class that could not be decoded: errors in its recall."""


@dataclass(frozen=True)
class Shown:
    """A measure as people see it."""

    words: str
    value: float | None
    """Null is not shown."""
    report_words: str | None = None
    """Below the number in the report; null is `words`."""
    tells: bool = True
    """Whether it could be otherwise; the report leaves out what could not."""
    interval: Interval | None = None


class MetricIntervals(Record):
    """Intervals of accuracies by the bootstrap over groups of clips; null where there are no clips."""

    top1_accuracy: Interval | None = None
    mean_class_accuracy: Interval | None = None
    reversed_pairs_accuracy: Interval | None = None
    num_groups: int = 0
    """Groups that resamples are of."""


class SplitMetrics(Record):
    """The numbers of one split; clips that could not be decoded count as errors in every accuracy."""

    num_clips: int
    """All clips that were measured, failed ones included."""
    num_failed: int
    """Clips that could not be decoded."""
    min_frames: int
    """Fewest frames of a clip; 0 when no clip could be decoded."""
    max_frames: int
    """Most frames of a clip."""
    views: Literal[1] = 1
    """Views of a clip that these numbers are of: one, all of each frame, as the predictor does."""
    top1_accuracy: float
    top5_accuracy: float
    """Right class among the five best; with five classes or fewer, 1 for every decoded clip."""
    mean_class_accuracy: float
    """Mean recall of the classes that have clips."""
    majority_baseline: float
    """Accuracy of always answering the most frequent class of the training split."""
    loss: float | None
    """Mean cross-entropy of the decoded clips; null when there are none."""
    reversed_pairs_accuracy: float | None
    """Top-1 accuracy on the clips whose class has a time-reversed partner; null when there are none."""
    num_reversed_pair_clips: int
    classes: tuple[ClassMetrics, ...]
    confusion_matrix: tuple[tuple[int, ...], ...]
    """Decoded clips by true class (row) and predicted class (column)."""
    intervals: MetricIntervals = MetricIntervals()
    """Empty where an earlier version measured, or another model for comparison."""

    @property
    def shown(self) -> tuple[Shown, ...]:
        """What the command line and the report show, the most important one first."""
        return (
            Shown("top-1 accuracy", self.top1_accuracy, interval=self.intervals.top1_accuracy),
            Shown("top-5 accuracy", self.top5_accuracy, tells=len(self.classes) > 5),
            Shown("mean-class accuracy", self.mean_class_accuracy, interval=self.intervals.mean_class_accuracy),
            Shown("majority class", self.majority_baseline, "always the most frequent class"),
            Shown(
                "top-1 on classes that differ only in time's order",
                self.reversed_pairs_accuracy,
                f"on the {self.num_reversed_pair_clips} clips of time-reversed pairs",
                interval=self.intervals.reversed_pairs_accuracy,
            ),
        )


class DisturbedResult(Record):
    """The same decoded clips with their frames disturbed; an undisturbed line stands beside for comparison."""

    kind: Literal[Disturbance, "none"]
    num_clips: int
    """Decoded clips."""
    top1_accuracy: float
    """Of the decoded clips."""
    num_pair_clips: int
    """Decoded clips whose class has a time-reversed partner."""
    predicted_partner: float | None
    """Share of those that are predicted as the partner class."""
    num_within_pair: int
    """Those that are predicted as either class of their pair."""
    right_within_pair: float | None
    """Share of these with the larger logit at the right class of the two: 0.5 is chance."""


class MeasuredConfidence(Record):
    """How far the confidences of a split's decoded clips can be believed, before and after calibration."""

    before: ConfidenceQuality
    """At temperature 1."""
    after: ConfidenceQuality | None = None
    """At the temperature of `calibration`; null without."""
    calibration: Calibration | None = None
    """What the model is served with; null where none could be fitted."""
    why_not_calibrated: str = ""
    """Why no calibration could be fitted, so that `calibration` is null, or of an earlier evaluation; empty where one
    was."""
    coverage: tuple[CoveragePoint, ...] = ()
    """With what `calibration` says of the clips; else with their confidences as they are."""
    sure: CoveragePoint | None = None
    """At the threshold of `calibration`; null without."""
    unsure_accuracy: float | None = None
    """Share of right ones among the unsure answers; null where there are none."""

    @property
    def final(self) -> ConfidenceQuality:
        """Of the confidences that the predictor gives."""
        return self.after or self.before

    @property
    def words(self) -> str:
        """The calibration error, and what the threshold does, in a few words."""
        before, final = self.before.expected_calibration_error, self.final.expected_calibration_error
        sure = ""
        if self.sure and self.sure.accuracy is not None:
            sure = f"; {self.sure.coverage:.3f} of the answers are sure, {self.sure.accuracy:.3f} of these right"
        return f"expected calibration error {before:.3f} before, {final:.3f} after{sure}"

    def headline(self) -> dict[str, float | None]:
        """The numbers for MLflow and the registry, by name."""
        calibration = self.calibration
        return {
            "expected_calibration_error": self.final.expected_calibration_error,
            "uncalibrated_expected_calibration_error": self.before.expected_calibration_error,
            "temperature": calibration.temperature if calibration else None,
            "unsure_below": calibration.unsure_below if calibration else None,
            "sure_coverage": self.sure.coverage if self.sure else None,
            "sure_accuracy": self.sure.accuracy if self.sure else None,
        }


class PromptResults(Record):
    """The model asked in several ways: the prompts that training rows have most."""

    top1_accuracy: dict[str, float]
    """By the prompt's text."""
    mean: float
    spread: float
    """Standard deviation over the prompts; 0 for one."""

    @classmethod
    def of(cls, accuracies: dict[str, float]) -> Self:
        """Sums up."""
        values = list(accuracies.values())
        return cls(
            top1_accuracy=accuracies,
            mean=statistics.fmean(values),
            spread=statistics.stdev(values) if len(values) > 1 else 0.0,
        )


class GateVerdict(Record):
    """Whether the model may be exported and deployed, and why."""

    passed: bool
    reasons: tuple[str, ...]
    """One sentence per rule."""


class MeasuredModel(Record):
    """What there is to say of the measurement of any model."""

    split: Split
    model_dir: str
    num_clips: int
    """All clips that were measured, failed ones included."""
    num_failed: int
    """Clips that could not be decoded."""
    precision: str = ""
    """What was computed in: as in training, and as the predictor does."""
    left_out: LeftOut = LeftOut()
    """Clips of the split that the model has seen: they are in none of the numbers."""
    knows_what_it_saw: bool = False
    """Whether the model's directory says which clips it has seen; else the numbers may be too high."""
    gate: GateVerdict
    test_fingerprint: str
    """Hash of the split's clips, their labels and how they were prepared: equal numbers are comparable."""
    prepared_fingerprint: str
    data_fingerprint: str
    seconds: float
    """Time to predict the split, without loading the model."""

    @property
    def caveats(self) -> str:
        """What has to be said behind the number of clips; empty where there is nothing."""
        left_out = f", without {self.left_out.words} that the model has seen" if self.left_out.total else ""
        return left_out + ("" if self.knows_what_it_saw else "; it is not known what the model has seen")

    @property
    def measured_on(self) -> str:
        """The clips of the numbers in a few words."""
        return f"{self.num_clips} clips of the {self.split} split{self.caveats}"

    def fingerprints(self) -> dict[str, str]:
        """The tags that say what the numbers were measured on."""
        return {
            "evaluated_split": self.split,
            "test_fingerprint": self.test_fingerprint,
            "prepared_fingerprint": self.prepared_fingerprint,
            "data_fingerprint": self.data_fingerprint,
        }


class EvaluationMetrics(SplitMetrics, MeasuredModel):
    """`metrics.json` of a classifier."""

    prompt: str = ""
    """What was asked about every clip, as the predictor asks it, whatever the rows ask."""
    baselines: tuple[Baseline, ...] = ()
    """Empty where none was asked for."""
    disturbed: tuple[DisturbedResult, ...]
    """Empty unless `disturb_frames` asks for it."""
    prompts: PromptResults | None = None
    """Null unless `evaluate_all_prompts` asks for it: the other numbers are of the prompt that is served."""
    confidence: MeasuredConfidence | None = None
    """Null where no clip could be decoded, or an earlier version measured."""
    multi_view: MultiView | None = None
    """Null unless `test_num_clips` or `test_num_crops` ask for it: everything else is of a single view."""
    slices: tuple[Slice, ...] = ()
    """Top-1 accuracy by what clips are; empty where an earlier version measured."""
    champion: ChampionComparison | None
    """Null when there is none, or it was not asked for."""

    @property
    def shown(self) -> tuple[Shown, ...]:
        """What the command line and the report show: of the split, and of the confidence."""
        views = self.multi_view
        several = (
            ()
            if views is None
            else (Shown(f"top-1 accuracy, views: {views.name}", views.top1_accuracy, interval=views.interval),)
        )
        if self.confidence is None:
            return (*super().shown, *several)
        sure = self.confidence.sure
        return (
            *super().shown,
            *several,
            Shown(
                "expected calibration error",
                self.confidence.final.expected_calibration_error,
                "expected calibration error of its confidence",
            ),
            Shown(
                "accuracy of sure answers",
                sure.accuracy if sure else None,
                f"right among sure answers, {100 * sure.coverage:.0f} % of all" if sure else None,
            ),
        )

    def headline(self) -> dict[str, float]:
        """The numbers for MLflow and the registry, by name."""
        numbers: dict[str, float | None] = {
            "top1_accuracy": self.top1_accuracy,
            "top5_accuracy": self.top5_accuracy,
            "mean_class_accuracy": self.mean_class_accuracy,
            "majority_baseline": self.majority_baseline,
            "loss": self.loss,
            "reversed_pairs_accuracy": self.reversed_pairs_accuracy,
            "num_clips": float(self.num_clips),
            "num_failed": float(self.num_failed),
            "num_left_out": float(self.left_out.total),
        }
        for row in self.disturbed:
            if row.kind != "none":
                numbers[f"{row.kind}_top1_accuracy"] = row.top1_accuracy
                numbers[f"{row.kind}_predicted_partner"] = row.predicted_partner
                numbers[f"{row.kind}_right_within_pair"] = row.right_within_pair
        if self.intervals.top1_accuracy:
            numbers["top1_accuracy_low"] = self.intervals.top1_accuracy.low
            numbers["top1_accuracy_high"] = self.intervals.top1_accuracy.high
        for baseline in self.baselines:
            numbers[f"baseline_{baseline.kind}_top1_accuracy"] = baseline.top1_accuracy
            numbers[f"gain_over_{baseline.kind}"] = baseline.gain
        if self.multi_view is not None:
            name = f"views_{self.multi_view.temporal}x{self.multi_view.spatial}"
            numbers |= {f"{name}_top1_accuracy": self.multi_view.top1_accuracy, f"{name}_gain": self.multi_view.gain}
        if self.prompts is not None:
            numbers |= {"prompts_mean_top1_accuracy": self.prompts.mean, "prompts_spread": self.prompts.spread}
        if self.confidence is not None:
            numbers |= self.confidence.headline()
        return {name: value for name, value in numbers.items() if value is not None}

    @property
    def calibration(self) -> Calibration | None:
        """What goes with the model's weights; null where none was fitted, and the model had none."""
        return self.confidence.calibration if self.confidence else None

    @property
    def summary(self) -> str:
        """What it came to, in one line."""
        return f"top-1 {self.top1_accuracy:.3f} on {self.num_clips} clips{self.caveats}"


class SmokeClip(Record):
    """`smoke_clip.json`: a clip whose answer a deployment must repeat."""

    clip_id: str
    video: str
    """Path or s3:// URI of a whole video file."""
    prediction: int | None
    """Null where the answer is not one class."""
    predicted_name: str
    logits: tuple[float, ...]
