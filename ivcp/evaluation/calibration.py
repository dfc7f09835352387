"""Fits the temperature and the threshold for "unsure" on predicted clips that the model was not trained on.

Both are fitted as if there were one clip more of which nothing good is known: for the temperature one of an unknown
class, for the threshold a wrong answer. So no number of right answers shows that a model is never wrong, and the more
clips there are the less that one counts.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from ivcp.data.seen_clips import SeenClips
from ivcp.evaluation.confidence import all_thresholds, confidence_quality, coverage_curve, split_by_threshold
from ivcp.evaluation.predict import PredictedSplit
from ivcp.evaluation.unseen import SplitClips
from ivcp.records import PreparedIndex, Split
from ivcp.records.calibration import ALWAYS_UNSURE, Calibration
from ivcp.records.evaluation import MeasuredConfidence

FEWEST_CLIPS = 50
"""Of models that are right nine times of ten, and too sure by a temperature of 1.5, a fit on 50 clips improves the
likelihood on new clips in 92 of 100 cases, one on 30 in 78, one on 20 in 60 (simulated, 3 and 10 classes)."""
_WIDEST = 7.0
"""The temperature is looked for between e⁻⁷ and e⁷ times the logits' spread: between certainty and a coin toss."""


class NotCalibratedError(ValueError):
    """There are not the clips to fit a temperature on; the message says why."""


def clips_to_fit_on(
    index: PreparedIndex,
    seen: SeenClips,
    *,
    verify_checksums: bool = False,
    fewest: int | None = None,
    what: str = "a temperature",
) -> SplitClips:
    """The validation clips that a model was not trained on; those that chose its checkpoint may choose this too.

    With fewer than `fewest` (null is `FEWEST_CLIPS`), `what` is fitted is mostly chance.

    Raises:
        NotCalibratedError: there are none, or too few.
        ShardError: shards are missing or damaged.
    """
    if not seen.is_complete:
        raise NotCalibratedError("it is not known which clips the model was trained on")
    if not index.num_clips.get("val"):
        raise NotCalibratedError("there is no validation split: set val_size or eval_dataset")
    clips = SplitClips.of(index, "val", verify_checksums=verify_checksums)
    clips = clips.unseen_by(SeenClips(trained=seen.trained)).clips
    _check_enough(len(clips.samples), "val", fewest=fewest, what=what)
    return clips


def _check_enough(count: int, split: Split, *, fewest: int | None = None, what: str = "a temperature") -> None:
    fewest = FEWEST_CLIPS if fewest is None else fewest
    if count < fewest:
        raise NotCalibratedError(
            f"the {split} split has {count} clips for it that could be decoded and were not trained on, and {what} "
            f"from fewer than {fewest} is mostly chance: make val_size larger"
        )


def fit_calibration(predicted: PredictedSplit, *, split: Split, sure_accuracy: float | None) -> Calibration:
    """The temperature with the highest likelihood, and the threshold from which on `sure_accuracy` holds.

    Raises:
        NotCalibratedError: there are too few decoded clips.
    """
    _check_enough(len(predicted.labels), split)
    temperature = fit_temperature(predicted.logits, predicted.labels)
    calibrated = replace(predicted, temperature=temperature)
    return Calibration(
        temperature=temperature,
        unsure_below=None if sure_accuracy is None else choose_threshold(calibrated, sure_accuracy),
        sure_accuracy=sure_accuracy,
        split=split,
        num_clips=len(predicted.labels),
        before=confidence_quality(predicted),
        after=confidence_quality(calibrated),
        coverage=coverage_curve(calibrated),
    )


def fit_temperature(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """The temperature of logits, (n, classes), against labels, (n,): positive and finite, whatever the logits are.

    The mean cross-entropy is convex in 1 / temperature, so that it has one lowest place.
    """
    centred = logits.astype(np.float64)
    centred -= centred.mean(axis=1, keepdims=True)
    spread = float(centred.std())
    if spread == 0:  # of one class, or the same for all: no temperature changes them
        return 1.0
    rows, doubt = np.arange(len(labels)), 1 / (len(labels) + 1)

    def loss(log_temperature: float) -> float:
        logs = log_softmax(centred / (spread * np.exp(log_temperature)), axis=1)
        return float(-((1 - doubt) * logs[rows, labels] + doubt * logs.mean(axis=1)).mean())

    found = minimize_scalar(loss, bounds=(-_WIDEST, _WIDEST), method="bounded", options={"xatol": 1e-6})
    return float(spread * np.exp(found.x))


def choose_threshold(calibrated: PredictedSplit, sure_accuracy: float) -> float:
    """The lowest confidence from which on `sure_accuracy` of the answers are right, even if one more were wrong.

    Where there is none, `ALWAYS_UNSURE`: the model cannot answer so surely.
    """
    thresholds, sure, right = all_thresholds(calibrated)
    reached = np.flatnonzero(right >= sure_accuracy * (sure + 1) - 1e-9)
    return float(thresholds[reached[-1]]) if len(reached) else ALWAYS_UNSURE


def measure_confidence(
    predicted: PredictedSplit, *, calibration: Calibration | None, why_not: str = ""
) -> MeasuredConfidence | None:
    """How far the confidences of a split can be believed with a calibration; null where no clip could be decoded."""
    if not len(predicted.labels):
        return None
    if calibration is None:
        return MeasuredConfidence(
            before=confidence_quality(predicted), coverage=coverage_curve(predicted), why_not_calibrated=why_not
        )
    calibrated, threshold = replace(predicted, temperature=calibration.temperature), calibration.unsure_below
    sure, unsure_accuracy = (None, None) if threshold is None else split_by_threshold(calibrated, threshold)
    return MeasuredConfidence(
        before=confidence_quality(replace(predicted, temperature=1.0)),
        after=confidence_quality(calibrated),
        calibration=calibration,
        why_not_calibrated=why_not,
        coverage=coverage_curve(calibrated),
        sure=sure,
        unsure_accuracy=unsure_accuracy,
    )
