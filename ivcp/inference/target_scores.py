"""How near a model's outputs are to what clips are labelled with, where that is not one class.

The figures are scikit-learn's and SciPy's; those that are not defined for the clips at hand are left out.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ivcp.records import Labels

DEFAULT_THRESHOLD = 0.5
"""The probability from which on a class is shown, where none was fitted."""

Numbers = dict[str, float]


def scores_of(outputs: NDArray[Any], targets: NDArray[Any], labels: Labels) -> Numbers:
    """The figures of outputs, (clips, outputs), against targets: (clips, classes) of 0 and 1, (clips, heads) of
    classes, or (clips,) of numbers. What is not defined for numbers is 0: any of these may choose a checkpoint."""
    match labels.kind:
        case "classes":
            return multi_label_scores(sigmoid(outputs), targets > 0, np.full(labels.num_classes, DEFAULT_THRESHOLD))
        case "heads":
            return heads_scores(predicted_heads(outputs, labels), targets.astype(np.int64), labels)
        case _:
            found = value_scores(values_of(outputs, labels), targets.astype(np.float64))
            return {"r2": 0.0, "spearman": 0.0} | found


def losses_of(outputs: NDArray[Any], targets: NDArray[Any], labels: Labels) -> NDArray[np.float64]:
    """Of each clip, (clips,), what validation's loss is the mean of."""
    from scipy.special import log_softmax

    outputs = outputs.astype(np.float64)
    match labels.kind:
        case "classes":
            signed = np.where(targets > 0, -outputs, outputs)
            return np.asarray(np.logaddexp(0.0, signed).mean(axis=1))
        case "heads":
            rows = np.arange(len(outputs))
            logs = [
                log_softmax(outputs[:, each], axis=1)[rows, targets[:, number].astype(np.int64)]
                for number, each in enumerate(labels.outputs_of_heads)
            ]
            return np.asarray(-np.mean(logs, axis=0))
        case _:
            assert labels.scale is not None
            return np.asarray(((values_of(outputs, labels) - targets) / labels.scale.std) ** 2)


def sigmoid(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Probabilities of classes that do not exclude each other."""
    from scipy.special import expit

    return np.asarray(expit(logits.astype(np.float64)))


def predicted_heads(outputs: NDArray[Any], labels: Labels) -> NDArray[np.int64]:
    """The likeliest class of each head, (clips, heads)."""
    if not len(outputs):
        return np.zeros((0, len(labels.heads)), dtype=np.int64)
    return np.stack([outputs[:, each].argmax(axis=1) for each in labels.outputs_of_heads], axis=1)


def values_of(outputs: NDArray[Any], labels: Labels) -> NDArray[np.float64]:
    """The numbers that outputs, (clips, 1), stand for, (clips,)."""
    scale = labels.scale
    assert scale is not None, "a training sets it"
    return np.asarray(scale.mean + scale.std * outputs.astype(np.float64).reshape(-1))


def average_precisions(probabilities: NDArray[np.float64], truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Of each class, (classes,); NaN for one that no clip has.

    A clip with probabilities below 0 could not be decoded: its classes are never found, however many others are shown.
    """
    from sklearn.metrics import average_precision_score

    found, decoded = np.full(truth.shape[1], math.nan), (probabilities >= 0).all(axis=1)
    for label in np.flatnonzero(truth.any(axis=0)):
        shown, share = truth[decoded, label], truth[decoded, label].sum() / truth[:, label].sum()
        found[label] = share and share * average_precision_score(shown, probabilities[decoded, label])
    return found


def multi_label_scores(
    probabilities: NDArray[np.float64], truth: NDArray[np.bool_], thresholds: NDArray[np.float64]
) -> Numbers:
    """Mean average precision, and what thresholds, (classes,), come to; macro figures are over classes with clips."""
    from sklearn.metrics import f1_score, precision_score, recall_score

    if not truth.any():
        return {}
    shown, present = probabilities >= thresholds, np.flatnonzero(truth.any(axis=0))
    numbers = {
        "mean_average_precision": float(np.nanmean(average_precisions(probabilities, truth))),
        "f1_micro": f1_score(truth, shown, average="micro", zero_division=0),
        "f1_macro": f1_score(truth, shown, average="macro", labels=present, zero_division=0),
        "precision_micro": precision_score(truth, shown, average="micro", zero_division=0),
        "recall_micro": recall_score(truth, shown, average="micro", zero_division=0),
        "exact_match": float((shown == truth).all(axis=1).mean()),
    }
    return {name: float(value) for name, value in numbers.items()}


def heads_scores(guesses: NDArray[np.int64], truth: NDArray[np.int64], labels: Labels) -> Numbers:
    """The share of clips with all heads right, and of each head that of right answers and the mean over its classes;
    a guess of -1 is never right."""
    from sklearn.metrics import recall_score

    if not len(truth):
        return {}
    numbers = {"joint_accuracy": float((guesses == truth).all(axis=1).mean())}
    for number, head in enumerate(labels.heads):
        own, right = truth[:, number], guesses[:, number] == truth[:, number]
        recalls = recall_score(own, guesses[:, number], labels=np.unique(own), average=None, zero_division=0)
        numbers[f"{head.name}_top1_accuracy"] = float(right.mean())
        numbers[f"{head.name}_mean_class_accuracy"] = float(np.mean(recalls))
    return numbers


def value_scores(values: NDArray[np.float64], truth: NDArray[np.float64]) -> Numbers:
    """Errors in the unit of the numbers, the share of their variance that is explained, and whether their order is
    that of the truth: neither of the last two is there where all are the same."""
    from scipy.stats import spearmanr
    from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

    if not len(truth):
        return {}
    numbers = {
        "mae": float(mean_absolute_error(truth, values)),
        "rmse": float(root_mean_squared_error(truth, values)),
    }
    if np.ptp(truth) > 0:
        numbers["r2"] = float(r2_score(truth, values))
        if np.ptp(values) > 0:
            numbers["spearman"] = float(spearmanr(truth, values).statistic)
    return numbers
