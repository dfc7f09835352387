"""Fits from which probability on each class is shown, on validation clips that the model was not trained on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ivcp.inference.target_scores import DEFAULT_THRESHOLD, multi_label_scores
from ivcp.records import Split
from ivcp.records.thresholds import Thresholds

FEWEST_POSITIVE = 5
"""Clips with a class, and without it: from fewer, the best threshold is mostly chance, and 0.5 stays."""


def fit_thresholds(probabilities: NDArray[np.float64], truth: NDArray[np.bool_], *, split: Split) -> Thresholds:
    """The thresholds with the highest F1 of each class; both arguments are (clips, classes)."""
    num_positive = truth.sum(axis=0)
    enough = np.minimum(num_positive, len(truth) - num_positive) >= FEWEST_POSITIVE
    found = np.array(
        [
            best_threshold(probabilities[:, label], truth[:, label]) if enough[label] else DEFAULT_THRESHOLD
            for label in range(truth.shape[1])
        ]
    )
    before, after = (
        multi_label_scores(probabilities, truth, thresholds).get("f1_macro", 0.0)
        for thresholds in (np.full(len(found), DEFAULT_THRESHOLD), found)
    )
    return Thresholds(
        thresholds=tuple(found.tolist()),
        num_positive=tuple(num_positive.tolist()),
        split=split,
        num_clips=len(truth),
        f1_macro_before=before,
        f1_macro=after,
    )


def best_threshold(probabilities: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    """Halfway between two neighbouring probabilities, or below all: where F1 of one class is highest.

    Of several such places the one that is nearest to 0.5.
    """
    values, places = np.unique(probabilities, return_inverse=True)
    positive = np.bincount(places, weights=truth, minlength=len(values))
    counts = np.bincount(places, minlength=len(values))
    # Of a threshold at each value: how many are shown, and how many of them are right.
    shown, right = counts[::-1].cumsum()[::-1], positive[::-1].cumsum()[::-1]
    f1 = 2 * right / (shown + positive.sum())
    halves = (values[1:] + values[:-1]) / 2
    thresholds = np.concatenate([[values[0] / 2], np.where(halves > values[:-1], halves, values[1:])])
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    return float(thresholds[best[np.abs(thresholds[best] - DEFAULT_THRESHOLD).argmin()]])
