"""Mean average precision of resamples of a split."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ivcp.evaluation.intervals import Resamples

_MOST_ENTRIES = 500_000
"""Clips times classes: the resamples of more take minutes."""


def resampled_mean_average_precision(
    probabilities: NDArray[np.float64], truth: NDArray[np.bool_], resamples: Resamples
) -> NDArray[np.float64] | None:
    """Of each resample, (resamples,); null where that would take too long."""
    if truth.size > _MOST_ENTRIES:
        return None
    found = []
    for times in resamples.times_of_clips():
        by_class = np.stack(
            [weighted_average_precision(probabilities[:, c], truth[:, c], times) for c in range(truth.shape[1])]
        )
        counted = np.isfinite(by_class)
        with np.errstate(invalid="ignore"):
            found.append(np.where(counted, by_class, 0.0).sum(axis=0) / counted.sum(axis=0))
    return np.concatenate(found)


def weighted_average_precision(
    probabilities: NDArray[np.float64], truth: NDArray[np.bool_], times: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Of one class where clips are counted so often, `times` being (resamples, clips); NaN where none has it.

    Clips of one probability are taken together, as scikit-learn does; those with one below 0 are never found.
    """
    order = np.argsort(-probabilities, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(probabilities[order])), len(order) - 1)
    counts = times[:, order]
    shown = counts.cumsum(axis=1)[:, ends].astype(np.float64)
    right = (counts * truth[order]).cumsum(axis=1)[:, ends].astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where((shown > 0) & (probabilities[order][ends] >= 0), right / shown, 0.0)
        gained = np.diff(right, axis=1, prepend=0.0)
        found = (precision * gained).sum(axis=1) / right[:, -1]
    return np.asarray(found)
