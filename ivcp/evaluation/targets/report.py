"""The files of an evaluation whose answers are not one class: figures, predictions, pictures and the page."""

from __future__ import annotations

import base64
import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ivcp.evaluation.confusion_plot import draw_confusion_matrix
from ivcp.evaluation.report import film_strip, templates
from ivcp.evaluation.targets.predict import PredictedTargets
from ivcp.evaluation.targets.words import named, said_of
from ivcp.inference.loop import Samples
from ivcp.inference.target_scores import losses_of
from ivcp.records import CLASS_TABLE_FILE, METRICS_FILE, PREDICTIONS_FILE, REPORT_HTML, write_lines
from ivcp.records.target_evaluation import (
    CONFUSION_OF_HEAD,
    SCATTER_FILE,
    TargetClass,
    TargetMetrics,
    TargetPrediction,
    words_of,
)
from ivcp.records.thresholds import Thresholds
from ivcp.storage.atomic import write_whole

_WORST_SHOWN = 12
_ACCENT, _LINE = "#2b6cb0", "#c3ccd5"


@dataclass(frozen=True)
class Worst:
    """A clip whose answer is far from the truth, as the report shows it."""

    clip_id: str
    video: str
    truth: str
    said: str
    loss: float
    strip: str
    """Some of the clip's frames side by side, as a data: URI."""


def write_files(
    output_dir: Path, metrics: TargetMetrics, predicted: PredictedTargets, samples: Samples, *, title: str
) -> list[Path]:
    """Writes all of them into `output_dir`; returns their paths."""
    metrics.write(output_dir / METRICS_FILE)
    write_lines(output_dir / PREDICTIONS_FILE, prediction_rows(predicted, metrics.thresholds))
    files = [METRICS_FILE, PREDICTIONS_FILE, REPORT_HTML]
    pictures = []
    for number, (head, matrix) in enumerate(metrics.confusion_matrices.items()):
        files.append(CONFUSION_OF_HEAD.format(number=number))
        draw_confusion_matrix(matrix, label_names=metrics.heads[head], path=output_dir / files[-1], title=head)
        pictures.append(files[-1])
    if metrics.target == "value" and len(predicted):
        files.append(SCATTER_FILE)
        draw_values(predicted, unit=metrics.unit, path=output_dir / SCATTER_FILE)
        pictures.append(SCATTER_FILE)
    if metrics.classes:
        files.append(CLASS_TABLE_FILE)
        _write_table(output_dir / CLASS_TABLE_FILE, metrics.classes)
    page = templates().get_template("targets/report_template.html")
    html = page.render(
        title=title,
        metrics=metrics,
        constant=[(words_of(name), value, metrics.numbers.get(name)) for name, value in metrics.constant.items()],
        pictures=[_data_uri(output_dir / name) for name in pictures],
        worst=worst_clips(predicted, samples, metrics.thresholds),
        failed=predicted.failed,
    )
    write_whole(output_dir / REPORT_HTML, html)
    return [output_dir / name for name in files]


def prediction_rows(predicted: PredictedTargets, thresholds: Thresholds | None) -> list[TargetPrediction]:
    """The rows of `predictions.jsonl`: decoded clips in the data set's order, then those that failed."""
    is_value = predicted.labels.kind == "value"
    probabilities: Sequence[Sequence[float]] = [()] * len(predicted)
    truths: Sequence[tuple[str, ...] | None] = [None] * len(predicted)
    guesses, values = truths, [None] * len(predicted)
    if predicted.labels.kind == "classes":
        probabilities = predicted.probabilities.tolist()
    if is_value:
        values = predicted.values.tolist()
    else:
        truths, guesses = (named(predicted, thresholds, guesses=each) for each in (False, True))
    decoded = [
        TargetPrediction(
            clip_id=clip_id,
            video=video,
            label_names=truth,
            predicted_names=guess,
            value=float(target) if is_value else None,
            predicted_value=value,
            probabilities=tuple(shares),
            logits=tuple(float(output) for output in outputs),
        )
        for clip_id, video, truth, guess, target, value, shares, outputs in zip(
            *(predicted.clip_ids, predicted.videos, truths, guesses, predicted.targets, values, probabilities),
            predicted.outputs,
            strict=True,
        )
    ]
    labels = predicted.labels
    starts = [outputs.start for outputs in labels.outputs_of_heads]
    return decoded + [
        TargetPrediction(
            clip_id=clip.clip_id,
            video=clip.video,
            label_names=None
            if clip.labels is None
            else tuple(
                labels.label_names[label + (starts[place] if starts else 0)] for place, label in enumerate(clip.labels)
            ),
            value=clip.value,
        )
        for clip in predicted.failed
    ]


def worst_clips(predicted: PredictedTargets, samples: Samples, thresholds: Thresholds | None) -> list[Worst]:
    """The clips with the largest loss among those that are not answered rightly, the worst first."""
    if not len(predicted):
        return []
    losses = losses_of(predicted.outputs, predicted.targets, predicted.labels)
    truth, said = (said_of(predicted, thresholds, guesses=each) for each in (False, True))
    wrong = [int(row) for row in np.argsort(-losses, kind="stable") if truth[row] != said[row]]
    return [
        Worst(
            clip_id=predicted.clip_ids[row],
            video=predicted.videos[row],
            truth=truth[row],
            said=said[row],
            loss=float(losses[row]),
            strip=film_strip(samples[row].media[0].frames),
        )
        for row in wrong[:_WORST_SHOWN]
    ]


def draw_values(predicted: PredictedTargets, *, unit: str, path: Path) -> None:
    """Writes a PNG: a point for each clip, its number and what was predicted; on the line both are the same."""
    figure = Figure(figsize=(5.6, 5.2), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    both = np.concatenate([predicted.values, predicted.targets])
    ends = [float(both.min()), float(both.max())]
    axes.plot(ends, ends, color=_LINE, linewidth=1.2, linestyle="--")
    axes.scatter(predicted.targets, predicted.values, s=16, color=_ACCENT, alpha=0.6, linewidths=0)
    axes.set(xlabel=f"{unit}, as annotated", ylabel=f"{unit}, predicted")
    axes.grid(color="#e8ecf0", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def _write_table(path: Path, classes: Sequence[TargetClass]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(TargetClass.model_fields))
        writer.writeheader()
        writer.writerows(row.model_dump() for row in classes)


def _data_uri(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
