"""Predictions whose confidences are what they say, or too sure by a known temperature."""

from dataclasses import replace

import numpy as np
from scipy.special import softmax

from ivcp.evaluation.predict import PredictedSplit
from tests.unit.evaluation.predicted import predicted_split


def drawn(number: int, *, temperature: float = 1.0, classes: int = 3, seed: int = 0) -> PredictedSplit:
    """Labels drawn from softmax(logits / `temperature`)."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(number, classes))
    logits[np.arange(number), rng.integers(classes, size=number)] += 3
    labels = (softmax(logits, axis=1).cumsum(axis=1) > rng.random((number, 1))).argmax(axis=1)
    return predicted_split(labels.tolist(), (logits * temperature).tolist())


def answered(confidences: list[float], is_right: list[bool]) -> PredictedSplit:
    """Two classes, the first of which is always predicted."""
    logits = [[np.log(confidence / (1 - confidence)), 0.0] for confidence in confidences]
    predicted = predicted_split([0 if right else 1 for right in is_right], logits)
    return replace(predicted, logits=np.array(logits))
