"""From predictions to numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from ivcp.evaluation.confidence import negative_log_likelihood
from ivcp.evaluation.intervals import Resamples
from ivcp.evaluation.predict import PredictedSplit
from ivcp.evaluation.unseen import SplitClips
from ivcp.records import Labels
from ivcp.records.evaluation import ClassMetrics, Disturbance, DisturbedResult, MetricIntervals, SplitMetrics

_FAILED = -1
"""Stands for the prediction of a clip that could not be decoded: never right."""


def measure(predicted: PredictedSplit, *, labels: Labels, majority_label: int) -> SplitMetrics:
    """The numbers of a predicted split; `majority_label` is the most frequent class of the training split.

    Raises:
        ValueError: the split has no clips at all.
    """
    truth = np.concatenate([predicted.labels, np.array([clip.label for clip in predicted.failed], dtype=np.int64)])
    if not len(truth):
        raise ValueError("the split has no clips: nothing can be measured; set test_dataset or test_size")
    guesses = np.concatenate([predicted.predictions, np.full(len(predicted.failed), _FAILED)])
    classes = _class_metrics(truth, guesses, labels)
    in_pair = np.isin(truth, list(labels.partner))
    frames = predicted.num_frames if len(predicted.num_frames) else np.zeros(1, dtype=np.int64)
    return SplitMetrics(
        num_clips=len(truth),
        num_failed=len(predicted.failed),
        min_frames=int(frames.min()),
        max_frames=int(frames.max()),
        top1_accuracy=float(np.mean(guesses == truth)),
        top5_accuracy=float(_in_top5(predicted).sum() / len(truth)),
        mean_class_accuracy=float(np.mean([row.recall for row in classes if row.support])),
        majority_baseline=float(np.mean(truth == majority_label)),
        loss=_loss(predicted),
        reversed_pairs_accuracy=_share(guesses[in_pair] == truth[in_pair]),
        num_reversed_pair_clips=int(in_pair.sum()),
        classes=classes,
        confusion_matrix=_confusion(predicted, labels),
    )


def measure_intervals(predicted: PredictedSplit, *, labels: Labels, clips: SplitClips) -> MetricIntervals:
    """The intervals of the accuracies of `predicted`, whose clips are `clips`; those that failed count as errors."""
    truth = np.concatenate([predicted.labels, np.array([clip.label for clip in clips.failed], dtype=np.int64)])
    hits = np.concatenate([predicted.predictions == predicted.labels, np.zeros(len(clips.failed), dtype=bool)])
    resamples = Resamples(clips.clusters)
    in_pair = np.isin(truth, list(labels.partner))
    return MetricIntervals(
        top1_accuracy=resamples.share(hits),
        mean_class_accuracy=resamples.mean_recall(truth, hits),
        reversed_pairs_accuracy=Resamples(resamples.groups[in_pair]).share(hits[in_pair]),
        num_groups=resamples.num_groups,
    )


def measure_disturbed(predicted: PredictedSplit, *, labels: Labels, kind: Disturbance | None) -> DisturbedResult:
    """How predictions of (disturbed) clips treat classes that differ only in the order of time."""
    partner = np.array([labels.partner.get(label, _FAILED) for label in range(labels.num_classes)])
    in_pair = partner[predicted.labels] != _FAILED
    truth, guesses, logits = predicted.labels[in_pair], predicted.predictions[in_pair], predicted.logits[in_pair]
    other, rows = partner[truth], np.arange(len(truth))
    within = (guesses == truth) | (guesses == other)
    is_right = logits[rows, truth] > logits[rows, other]
    return DisturbedResult(
        kind=kind or "none",
        num_clips=len(predicted.labels),
        top1_accuracy=_share(predicted.predictions == predicted.labels) or 0.0,
        num_pair_clips=len(truth),
        predicted_partner=_share(guesses == other),
        num_within_pair=int(within.sum()),
        right_within_pair=_share(is_right[within]),
    )


def _class_metrics(truth: NDArray[np.int64], guesses: NDArray[np.int64], labels: Labels) -> tuple[ClassMetrics, ...]:
    numbers = precision_recall_fscore_support(truth, guesses, labels=range(labels.num_classes), zero_division=0)
    failed = np.bincount(truth[guesses == _FAILED], minlength=labels.num_classes)
    return tuple(
        ClassMetrics(
            label_name=name,
            precision=float(precision),
            recall=float(recall),
            f1=float(f1),
            support=int(support),
            num_failed=int(num_failed),
        )
        for name, precision, recall, f1, support, num_failed in zip(labels.label_names, *numbers, failed, strict=True)
    )


def _confusion(predicted: PredictedSplit, labels: Labels) -> tuple[tuple[int, ...], ...]:
    if not len(predicted.labels):
        return tuple((0,) * labels.num_classes for _ in range(labels.num_classes))
    counts = confusion_matrix(predicted.labels, predicted.predictions, labels=range(labels.num_classes))
    return tuple(tuple(int(count) for count in row) for row in counts)


def _in_top5(predicted: PredictedSplit) -> NDArray[np.bool_]:
    best = np.argsort(-predicted.logits, axis=1, kind="stable")[:, :5]
    return np.asarray((best == predicted.labels[:, None]).any(axis=1))


def _loss(predicted: PredictedSplit) -> float | None:
    return negative_log_likelihood(replace(predicted, temperature=1.0)) if len(predicted.labels) else None


def _share(hits: NDArray[np.bool_]) -> float | None:
    return float(np.mean(hits)) if len(hits) else None
