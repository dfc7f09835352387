"""How far confidences can be believed: calibration error, and how accuracy grows where unsure answers are left out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from ivcp.evaluation.predict import PredictedSplit
from ivcp.records.calibration import ConfidenceBin, ConfidenceQuality, CoveragePoint

_BINS = 15
"""As Guo et al. 2017 have it."""
_MOST_POINTS = 100


def confidence_quality(predicted: PredictedSplit) -> ConfidenceQuality:
    """The calibration error (Naeini et al. 2015) and likelihood of a split with at least one decoded clip.

    By chance, a bin's accuracy is as far from its confidence as a sum of coin tosses from its mean.
    """
    confidences, is_right = answers_of(predicted)
    places = np.clip(np.ceil(confidences * _BINS).astype(int) - 1, 0, _BINS - 1)
    counts, sums, hits, variances = (
        np.bincount(places, weights=weights, minlength=_BINS)
        for weights in (None, confidences, is_right.astype(float), confidences * (1 - confidences))
    )
    used = np.flatnonzero(counts)
    return ConfidenceQuality(
        expected_calibration_error=float(np.abs(hits - sums).sum() / len(places)),
        expected_by_chance=float(np.sqrt(2 / np.pi * variances).sum() / len(places)),
        negative_log_likelihood=negative_log_likelihood(predicted),
        bins=tuple(
            ConfidenceBin(
                num_clips=int(counts[place]),
                confidence=float(sums[place] / counts[place]),
                accuracy=float(hits[place] / counts[place]),
            )
            for place in used
        ),
    )


def answers_of(predicted: PredictedSplit) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Of each decoded clip: the probability of the predicted class, and whether that is the right one."""
    guesses = predicted.predictions
    return predicted.probabilities[np.arange(len(guesses)), guesses], guesses == predicted.labels


def negative_log_likelihood(predicted: PredictedSplit) -> float:
    """Mean of -ln(probability of the right class) over at least one decoded clip."""
    logs = log_softmax(predicted.logits.astype(np.float64) / predicted.temperature, axis=1)
    return float(-logs[np.arange(len(logs)), predicted.labels].mean())


def all_thresholds(predicted: PredictedSplit) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Each confidence as a threshold, from the highest on; the number of sure answers from there on, and of right ones.

    Thresholds are rounded down to a millionth: the last digits of a probability differ between libraries.
    """
    confidences, is_right = answers_of(predicted)
    rounded = np.floor(confidences * 1e6) / 1e6
    order = np.argsort(-rounded, kind="stable")
    thresholds, right = rounded[order], np.cumsum(is_right[order], dtype=np.int64)
    last = np.flatnonzero(np.append(np.diff(thresholds) != 0, True)).astype(np.int64)
    return thresholds[last], last + 1, right[last]


def coverage_curve(predicted: PredictedSplit) -> tuple[CoveragePoint, ...]:
    """Coverage and accuracy at no more than a hundred thresholds, evenly spread over the clips."""
    thresholds, sure, right = all_thresholds(predicted)
    wanted = np.linspace(1, sure[-1], min(_MOST_POINTS, sure[-1]))
    chosen = np.unique(np.searchsorted(sure, wanted - 1e-9))
    return tuple(
        CoveragePoint(threshold=float(t), coverage=float(n / sure[-1]), accuracy=float(k / n))
        for t, n, k in zip(thresholds[chosen], sure[chosen], right[chosen], strict=True)
    )


def split_by_threshold(predicted: PredictedSplit, threshold: float) -> tuple[CoveragePoint, float | None]:
    """What is sure from a threshold on, and the accuracy of the unsure answers."""
    confidences, is_right = answers_of(predicted)
    is_sure = confidences >= threshold
    sure, unsure = (float(hits.mean()) if len(hits) else None for hits in (is_right[is_sure], is_right[~is_sure]))
    return CoveragePoint(threshold=threshold, coverage=float(is_sure.mean()), accuracy=sure), unsure
