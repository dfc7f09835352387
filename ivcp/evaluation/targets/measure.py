"""From outputs to figures, where the answer about a clip is not one class.

Clips that could not be decoded count as errors: none of their classes is shown, and no head is right. A number that was
not predicted is no error of any size, so that of numbers they are in no figure.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from ivcp.evaluation.intervals import Resamples
from ivcp.evaluation.targets.average_precision import resampled_mean_average_precision
from ivcp.evaluation.targets.predict import PredictedTargets
from ivcp.inference.target_scores import (
    Numbers,
    average_precisions,
    heads_scores,
    losses_of,
    multi_label_scores,
    value_scores,
)
from ivcp.records import Labels, PreparedIndex
from ivcp.records.baselines import Interval
from ivcp.records.target_evaluation import TargetClass

_FAILED = -1
"""Stands for the class, and the probability, of a clip that could not be decoded: never right, and never shown."""


def figures(predicted: PredictedTargets, thresholds: NDArray[np.float64]) -> Numbers:
    """All figures of a predicted split; `thresholds`, (classes,), count where a clip may show several."""
    match predicted.labels.kind:
        case "classes":
            return multi_label_scores(*_with_failed(predicted), thresholds)
        case "heads":
            guesses, truth = _heads_with_failed(predicted)
            return heads_scores(guesses, truth, predicted.labels)
        case _:
            return value_scores(predicted.values, predicted.targets)


def loss(predicted: PredictedTargets) -> float | None:
    """The mean loss of the decoded clips; null where there are none."""
    losses = losses_of(predicted.outputs, predicted.targets, predicted.labels) if len(predicted) else ()
    return float(np.mean(losses)) if len(losses) else None


def constant_figures(predicted: PredictedTargets, index: PreparedIndex, train: NDArray[np.float64] | None) -> Numbers:
    """What an answer comes to that is the same for all clips; `train` are the training clips' numbers, of a number."""
    labels, counts = predicted.labels, index.label_counts.get("train", ())
    match labels.kind:
        case "classes":
            _, truth = _with_failed(predicted)
            present = truth.any(axis=0)
            # All clips are equally likely to have a class: its average precision is the share of clips that have it.
            return {"mean_average_precision": float(truth.mean(axis=0)[present].mean())} if present.any() else {}
        case "heads":
            _, classes = _heads_with_failed(predicted)
            frequent = np.array([int(np.argmax(counts[each])) for each in labels.outputs_of_heads])
            return heads_scores(np.broadcast_to(frequent, classes.shape), classes, labels)
        case _:
            found = {} if train is None else value_scores(np.full(len(predicted), train.mean()), predicted.targets)
            return {name: value for name, value in found.items() if name in ("mae", "rmse")}


def class_table(predicted: PredictedTargets, thresholds: NDArray[np.float64]) -> tuple[TargetClass, ...]:
    """A line for each class, or each class of each head; none of a number."""
    if predicted.labels.kind == "value":
        return ()
    if predicted.labels.kind == "classes":
        probabilities, truth = _with_failed(predicted)
        shown, precisions = probabilities >= thresholds, average_precisions(probabilities, truth).tolist()
        more = [
            {"average_precision": None if np.isnan(each) else each, "threshold": threshold}
            for each, threshold in zip(precisions, thresholds.tolist(), strict=True)
        ]
    else:
        shown, truth = _one_hot(predicted)
        more = [{} for _ in range(truth.shape[1])]
    failed = truth[len(predicted) :].sum(axis=0)
    numbers = precision_recall_fscore_support(truth, shown, average=None, zero_division=0)
    return tuple(
        TargetClass(
            label_name=name,
            precision=float(precision),
            recall=float(recall),
            f1=float(f1),
            support=int(support),
            num_failed=int(num_failed),
            **of_class,
        )
        for name, precision, recall, f1, support, num_failed, of_class in zip(
            predicted.labels.label_names, *numbers, failed, more, strict=True
        )
    )


def confusion_matrices(predicted: PredictedTargets) -> dict[str, tuple[tuple[int, ...], ...]]:
    """Of each head: decoded clips by true class (row) and predicted class (column)."""
    guesses, found = predicted.head_guesses, {}
    for number, head in enumerate(predicted.labels.heads):
        counts = np.zeros((head.num_classes, head.num_classes), dtype=np.int64)
        if len(predicted):
            counts = confusion_matrix(predicted.targets[:, number], guesses[:, number], labels=range(head.num_classes))
        found[head.name] = tuple(tuple(int(count) for count in row) for row in counts)
    return found


def intervals(predicted: PredictedTargets, resamples: Resamples, thresholds: NDArray[np.float64]) -> dict[str, Any]:
    """Of the figures that the bootstrap is good for; `resamples` are of the decoded clips and those that failed."""
    match predicted.labels.kind:
        case "classes":
            found = _multi_label_intervals(predicted, resamples, thresholds)
        case "heads":
            guesses, truth = _heads_with_failed(predicted)
            right = guesses == truth
            found = {"joint_accuracy": resamples.share(right.all(axis=1))}
            for number, head in enumerate(predicted.labels.heads):
                found[f"{head.name}_top1_accuracy"] = resamples.share(right[:, number])
        case _:
            decoded = Resamples(resamples.groups[: len(predicted)])
            errors = np.abs(predicted.values - predicted.targets)
            squared = decoded.mean(errors**2)
            rooted = squared and Interval(low=float(np.sqrt(squared.low)), high=float(np.sqrt(squared.high)))
            found = {"mae": decoded.mean(errors), "rmse": rooted}
    return {name: interval for name, interval in found.items() if interval is not None}


def _multi_label_intervals(
    predicted: PredictedTargets, resamples: Resamples, thresholds: NDArray[np.float64]
) -> dict[str, Interval | None]:
    probabilities, truth = _with_failed(predicted)
    if not truth.any():
        return {}
    shown = probabilities >= thresholds
    counts = np.stack([(shown & truth).sum(axis=1), shown.sum(axis=1) + truth.sum(axis=1)], axis=1)
    sums = resamples.sums(csr_array(counts.astype(np.float64)))
    with np.errstate(invalid="ignore", divide="ignore"):
        f1 = 2 * sums[:, 0] / sums[:, 1]
    precisions = resampled_mean_average_precision(probabilities, truth, resamples)
    return {
        "mean_average_precision": None if precisions is None else resamples.between(precisions),
        "f1_micro": resamples.between(f1),
        "exact_match": resamples.share((shown == truth).all(axis=1)),
    }


def _with_failed(predicted: PredictedTargets) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Probabilities and truth, (clips, classes), of the decoded clips and behind them of those that failed."""
    truth = np.concatenate([predicted.targets, predicted.failed_targets]) > 0
    missing = np.full((len(predicted.failed), predicted.labels.num_classes), float(_FAILED))
    return np.concatenate([predicted.probabilities, missing]), truth


def _heads_with_failed(predicted: PredictedTargets) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Guesses and truth, (clips, heads), of the decoded clips and behind them of those that failed."""
    truth = np.concatenate([predicted.targets, predicted.failed_targets])
    missing = np.full((len(predicted.failed), len(predicted.labels.heads)), _FAILED)
    return np.concatenate([predicted.head_guesses, missing]), truth


def _one_hot(predicted: PredictedTargets) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Guesses and truth of all heads' classes, (clips, classes)."""
    guesses, truth = _heads_with_failed(predicted)
    return _spread(guesses, predicted.labels), _spread(truth, predicted.labels)


def _spread(classes: NDArray[np.int64], labels: Labels) -> NDArray[np.bool_]:
    parts = [classes[:, number : number + 1] == np.arange(head.num_classes) for number, head in enumerate(labels.heads)]
    return np.concatenate(parts, axis=1)
