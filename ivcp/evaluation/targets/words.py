"""What is said of a clip, in words."""

from __future__ import annotations

import numpy as np

from ivcp.evaluation.targets.predict import PredictedTargets
from ivcp.inference.target_scores import DEFAULT_THRESHOLD
from ivcp.records.thresholds import Thresholds

NONE = "none of the classes"


def named(predicted: PredictedTargets, thresholds: Thresholds | None, *, guesses: bool) -> list[tuple[str, ...]]:
    """The classes of each decoded clip, or those that the model says; with heads that of each head."""
    labels = predicted.labels
    if labels.kind == "classes":
        least = np.array(thresholds.thresholds) if thresholds else DEFAULT_THRESHOLD
        shown = predicted.probabilities >= least if guesses else predicted.targets > 0
        return [tuple(labels.label_names[label] for label in np.flatnonzero(row)) for row in shown]
    found = predicted.head_guesses if guesses else predicted.targets
    starts = np.array([outputs.start for outputs in labels.outputs_of_heads])
    return [tuple(labels.label_names[label] for label in row) for row in (found + starts).tolist()]


def said_of(predicted: PredictedTargets, thresholds: Thresholds | None, *, guesses: bool) -> list[str]:
    """The same, or the number, of each decoded clip as a text."""
    if predicted.labels.kind == "value":
        return [f"{value:.4g}" for value in (predicted.values if guesses else predicted.targets)]
    return [", ".join(names) or NONE for names in named(predicted, thresholds, guesses=guesses)]
