"""Clips whose label is probably wrong, by confident learning.

Northcutt, Jiang and Chuang: Confident Learning: Estimating Uncertainty in Dataset Labels, JAIR 70 (2021), section 3.1.
The threshold of a class is the mean probability that its own clips have for it. A clip is counted for the class that it
is most probable of, among those whose threshold it reaches; where that is not its label, the label is doubtful.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ivcp.evaluation.predict import PredictedSplit
from ivcp.records import Labels
from ivcp.records.evaluation_details import LabelIssue

_SHOWN = 24
_ROUNDING = 1e-9
"""A mean of equal numbers may be a little above them."""


def find_label_issues(predicted: PredictedSplit, labels: Labels) -> tuple[LabelIssue, ...]:
    """The clips with doubtful labels, those first that have the largest lead of another class over their own."""
    probabilities, truth = predicted.probabilities, predicted.labels
    if not len(truth):
        return ()
    confident = confident_classes(probabilities, truth)
    rows = np.flatnonzero((confident >= 0) & (confident != truth))
    lead = probabilities[rows, confident[rows]] - probabilities[rows, truth[rows]]
    return tuple(
        LabelIssue(
            clip_id=predicted.clip_ids[row],
            video=predicted.videos[row],
            label_name=labels.label_names[truth[row]],
            suggested_name=labels.label_names[confident[row]],
            label_probability=float(probabilities[row, truth[row]]),
            suggested_probability=float(probabilities[row, confident[row]]),
        )
        for row in rows[np.argsort(-lead, kind="stable")][:_SHOWN]
    )


def confident_classes(probabilities: NDArray[np.float64], truth: NDArray[np.int64]) -> NDArray[np.int64]:
    """The class that each row is counted for in the confident joint, (n,); -1 where it reaches no class's threshold.

    `probabilities` is (n, num_classes), `truth` (n,). Classes without clips have no threshold, and count for nothing.
    """
    thresholds = np.full(probabilities.shape[1], np.inf)
    for label in np.unique(truth):
        thresholds[label] = probabilities[truth == label, label].mean()
    reached = np.where(probabilities >= thresholds - _ROUNDING, probabilities, -1.0)
    best = reached.argmax(axis=1)
    return np.where(reached[np.arange(len(truth)), best] >= 0, best, -1)
