"""The figures of several trainings as one: from what each evaluation left."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from ivcp.evaluation.intervals import Resamples
from ivcp.evaluation.measure import measure
from ivcp.evaluation.predict import PredictedSplit
from ivcp.evaluation.slices import measure_slices
from ivcp.records import (
    LABELS_FILE,
    METRICS_FILE,
    PREDICTIONS_FILE,
    TRAINING_RESULT_FILE,
    Labels,
    Prediction,
    QuarantinedClip,
    read_lines,
)
from ivcp.records.evaluation import EvaluationMetrics
from ivcp.records.predictions import ClipFacts
from ivcp.records.series import MemberResult, SeriesKind, SeriesResult
from ivcp.records.slices import Slice
from ivcp.training.result import TrainingResult


@dataclass(frozen=True)
class Measured:
    """One training's evaluation."""

    result: MemberResult
    metrics: EvaluationMetrics
    predictions: tuple[Prediction, ...]

    @property
    def hits(self) -> NDArray[np.bool_]:
        """Whether each clip was recognised, (clips,)."""
        return np.array([row.prediction is not None and row.prediction == row.label for row in self.predictions])

    @property
    def truth(self) -> NDArray[np.int64]:
        """The class of each, (clips,)."""
        return np.array([row.label for row in self.predictions], dtype=np.int64)


def measure_series(
    kind: SeriesKind, runs: Sequence[tuple[str, Path, str]], *, seconds: float
) -> tuple[SeriesResult, tuple[Prediction, ...]]:
    """The result of runs, each given by its name, its folder and its MLflow run; and all of their predictions.

    Raises:
        ValueError: seeds were measured on different clips, clips of folds were not tested exactly once, or the
            trainings have different classes.
    """
    measured = [_read(name, folder, mlflow_run_id) for name, folder, mlflow_run_id in runs]
    labels = _labels(runs)
    rows = tuple(row for each in measured for row in each.predictions)
    _check_clips(kind, measured)
    pooled = measure(_split(rows, labels), labels=labels, majority_label=0)
    results = tuple(each.result for each in measured)
    clusters = _clusters(rows)
    weights = np.array([each.num_clips for each in results], dtype=np.float64)
    hits, truth = np.concatenate([each.hits for each in measured]), np.concatenate([each.truth for each in measured])
    if kind == "folds":
        top1, mean_class = pooled.top1_accuracy, pooled.mean_class_accuracy
        resamples = Resamples(clusters)
        intervals = resamples.share(hits), resamples.mean_recall(truth, hits)
        top5, majority = pooled.top5_accuracy, _mean([m.majority_baseline for m in results], weights)
    else:
        top1 = statistics.fmean(each.top1_accuracy for each in results)
        mean_class = statistics.fmean(each.mean_class_accuracy for each in results)
        top5 = statistics.fmean(each.top5_accuracy for each in results)
        majority = statistics.fmean(each.majority_baseline for each in results)
        if kind == "seeds":
            draws = np.stack([each.hits for each in measured])
            resamples = Resamples(clusters[: draws.shape[1]])
            of_mean = cast(NDArray[np.bool_], draws.mean(axis=0))  # recalls are sums: of means as well
            intervals = resamples.mean_share(draws), resamples.mean_recall(measured[0].truth, of_mean)
        else:
            resamples = Resamples(clusters)
            of_member = np.repeat(np.arange(len(results)), weights.astype(np.int64))
            intervals = resamples.mean_recall(of_member, hits), None  # the mean over splits of their shares
    chosen, why = _choice(kind, results)
    result = SeriesResult(
        kind=kind,
        members=results,
        views="1 x 1",
        more_views=measured[0].metrics.multi_view.name if measured[0].metrics.multi_view else "",
        num_clips=len(measured[0].predictions) if kind == "seeds" else len(rows),
        num_failed=results[0].num_failed if kind == "seeds" else pooled.num_failed,
        num_groups=resamples.num_groups,
        top1_accuracy=top1,
        top1_interval=intervals[0],
        top5_accuracy=top5,
        mean_class_accuracy=mean_class,
        mean_class_interval=intervals[1],
        majority_baseline=majority,
        classes=pooled.classes,
        confusion_matrix=pooled.confusion_matrix,
        slices=_slices(rows, hits, clusters) if kind == "folds" else (),
        chosen=chosen,
        why=why,
        seconds=seconds,
    )
    return result, rows


def _labels(runs: Sequence[tuple[str, Path, str]]) -> Labels:
    """The classes of all runs: predictions are counted by their numbers."""
    (first, *_), labels = runs[0], [Labels.read(folder / "validation" / LABELS_FILE) for _, folder, _ in runs]
    for (name, *_), others in zip(runs, labels, strict=True):
        if others.label_names != labels[0].label_names:
            differing = sorted(set(others.label_names) ^ set(labels[0].label_names))
            raise ValueError(
                f"{first} and {name} have different classes ({', '.join(differing[:5]) or 'in another order'}), and "
                "their answers cannot be counted together: each has its own report; give each rows of every class"
            )
    return labels[0]


def _read(name: str, folder: Path, mlflow_run_id: str) -> Measured:
    metrics = EvaluationMetrics.read(folder / "evaluation" / METRICS_FILE)
    training = folder / "adapter" / TRAINING_RESULT_FILE
    intervals = metrics.intervals
    result = MemberResult(
        name=name,
        run_dir=str(folder),
        report=str(folder / "evaluation" / "report.html"),
        mlflow_run_id=mlflow_run_id,
        num_clips=metrics.num_clips,
        num_failed=metrics.num_failed,
        top1_accuracy=metrics.top1_accuracy,
        interval=intervals.top1_accuracy,
        top5_accuracy=metrics.top5_accuracy,
        mean_class_accuracy=metrics.mean_class_accuracy,
        majority_baseline=metrics.majority_baseline,
        val_top1_accuracy=TrainingResult.read(training).val_top1_accuracy,
        baselines={b.kind: b.top1_accuracy for b in metrics.baselines if b.top1_accuracy is not None},
        views_top1_accuracy=metrics.multi_view.top1_accuracy if metrics.multi_view else None,
    )
    return Measured(result, metrics, tuple(read_lines(folder / "evaluation" / PREDICTIONS_FILE, Prediction)))


def _check_clips(kind: SeriesKind, measured: Sequence[Measured]) -> None:
    clips = [[row.clip_id for row in each.predictions] for each in measured]
    if kind == "seeds" and any(of_one != clips[0] for of_one in clips):
        raise ValueError("the seeds were measured on different clips: run the series again with --fresh")
    together = [clip for of_one in clips for clip in of_one]
    if kind == "folds" and len(set(together)) < len(together):
        raise ValueError("clips were tested by several folds: run the series again with --fresh")


def _split(rows: Sequence[Prediction], labels: Labels) -> PredictedSplit:
    """Predictions as one predicted split."""
    decoded = [row for row in rows if row.prediction is not None]
    logits = np.array([row.logits for row in decoded], dtype=np.float32).reshape(-1, labels.num_classes)
    return PredictedSplit(
        clip_ids=tuple(row.clip_id for row in decoded),
        videos=tuple(row.video for row in decoded),
        num_frames=np.zeros(len(decoded), dtype=np.int64),
        labels=np.array([row.label for row in decoded], dtype=np.int64),
        logits=logits,
        failed=tuple(_failed(row) for row in rows if row.prediction is None),
        seconds=0.0,
    )


def _failed(row: Prediction) -> QuarantinedClip:
    dataset, _, number = row.clip_id.rpartition(":")
    return QuarantinedClip(
        clip_id=row.clip_id,
        dataset=dataset,
        row=int(number),
        video=row.video,
        split="test",
        label=row.label,
        reason="not_decoded",
        detail="",
    )


def _clusters(rows: Sequence[Prediction]) -> NDArray[np.uint64]:
    """What clips that resemble each other share, (clips,); one without a group resembles no other."""
    known = [row.facts.group if row.facts and row.facts.group else f"clip {row.clip_id}" for row in rows]
    return np.unique(np.array(known), return_inverse=True)[1].reshape(-1).astype(np.uint64)


def _slices(rows: Sequence[Prediction], hits: NDArray[np.bool_], clusters: NDArray[np.uint64]) -> tuple[Slice, ...]:
    facts = [row.facts or ClipFacts(dataset=row.clip_id.rpartition(":")[0]) for row in rows]
    return measure_slices(hits, facts, clusters=clusters, videos=[row.video for row in rows])


def _mean(values: Sequence[float], weights: NDArray[np.float64]) -> float:
    return float(np.average(values, weights=weights))


def _choice(kind: SeriesKind, members: Sequence[MemberResult]) -> tuple[str, str]:
    """The training whose model goes on, and why; never by a figure of the test split."""
    if kind == "folds":
        return "", "each fold's model has learned from a part of the clips: train on all of them without folds"
    if kind == "official_splits":
        return "", "each split's model has learned from its own part: train on the one that you want to serve"
    figures = [member.val_top1_accuracy for member in members]
    if any(figure is None for figure in figures):
        return members[
            0
        ].name, "the first one: there is no validation split to choose by, and the test split never does"
    best = max(members, key=lambda member: member.val_top1_accuracy or 0.0)
    return best.name, f"best on the validation split, {best.val_top1_accuracy:.3f}; the test split chooses nothing"
