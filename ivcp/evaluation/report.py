"""The evaluation report: one HTML file with everything inside."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from ivcp.evaluation.curve_picture import draw_curve
from ivcp.evaluation.predict import PredictedSplit
from ivcp.inference.loop import Samples
from ivcp.records import Labels, QuarantinedClip
from ivcp.records.evaluation import ClassMetrics, EvaluationMetrics
from ivcp.records.evaluation_details import EvaluationDetails, LabelIssue
from ivcp.storage.atomic import write_whole

_FRAMES_SHOWN = 8
_FRAME_HEIGHT = 96
_MISTAKES_SHOWN = 12
_CLIPS_LISTED = 3000

ClipRow = tuple[int, int, float, str, str]
"""Label, prediction, confidence, id, video."""


@dataclass(frozen=True)
class Mistake:
    """A prediction, mostly a wrong one, as the report shows it."""

    clip_id: str
    video: str
    label_name: str
    predicted_name: str
    confidence: float
    label_confidence: float
    """Probability of the right class."""
    strip: str
    """Some of the clip's frames side by side, as a data: URI."""


def write_report(
    path: Path,
    *,
    metrics: EvaluationMetrics,
    mistakes: Sequence[Mistake],
    failed: Sequence[QuarantinedClip],
    confusion_picture: Path,
    title: str,
    confidence_picture: Path | None = None,
    details: EvaluationDetails | None = None,
    clips: Sequence[ClipRow] = (),
    uncertain: Sequence[Mistake] = (),
    doubtful: Sequence[Mistake] = (),
) -> None:
    """Renders `report.html`; it refers to no other file.

    `confidence_picture` belongs to `metrics.confidence`, and is null with it. `clips` are those that a click on the
    confusion matrix shows, `doubtful` those of `details.label_issues`.
    """
    matrix = np.asarray(metrics.confusion_matrix)
    num_wrong = int(matrix.sum() - matrix.trace())
    html = (
        templates()
        .get_template("report_template.html")
        .render(
            title=title,
            metrics=metrics,
            details=details,
            clips=clips,
            mistakes=mistakes,
            uncertain=uncertain,
            doubtful=doubtful,
            draw_curve=lambda curve: Markup(draw_curve(curve)),
            failed=failed,
            confusion_picture=_data_uri(confusion_picture.read_bytes(), "image/png"),
            confidence_picture=_data_uri(confidence_picture.read_bytes(), "image/png") if confidence_picture else None,
            num_wrong=num_wrong,
        )
    )
    write_whole(path, html)


def clip_rows(predicted: PredictedSplit) -> list[ClipRow]:
    """Of the decoded clips: true class, predicted class, confidence, id and video; wrong ones first, at most 3,000."""
    probabilities, guesses = predicted.probabilities, predicted.predictions
    order = np.argsort(guesses == predicted.labels, kind="stable")[:_CLIPS_LISTED]
    return [
        (
            int(predicted.labels[row]),
            int(guesses[row]),
            round(float(probabilities[row, guesses[row]]), 4),
            predicted.clip_ids[row],
            predicted.videos[row],
        )
        for row in order
    ]


def rows_of(predicted: PredictedSplit, issues: Sequence[LabelIssue]) -> NDArray[np.int64]:
    """The rows of the first doubtful labels, as many as are shown."""
    places = {clip_id: row for row, clip_id in enumerate(predicted.clip_ids)}
    return np.array([places[issue.clip_id] for issue in issues[:_MISTAKES_SHOWN]], dtype=np.int64)


def templates() -> jinja2.Environment:
    """The pages of this folder; what they show is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters["percent"] = lambda value: "–" if value is None else f"{100 * value:.1f} %"
    return environment


def worst_mistakes(predicted: PredictedSplit, samples: Samples, labels: Labels) -> list[Mistake]:
    """The wrong predictions that the model was surest of, the surest first."""
    probabilities, guesses = predicted.probabilities, predicted.predictions
    rows = np.arange(len(guesses))
    wrong = np.flatnonzero(guesses != predicted.labels)
    surest = wrong[np.argsort(-probabilities[rows, guesses][wrong], kind="stable")][:_MISTAKES_SHOWN]
    return shown_clips(predicted, surest, samples, labels)


def shown_clips(predicted: PredictedSplit, rows: NDArray[np.int64], samples: Samples, labels: Labels) -> list[Mistake]:
    """The clips of `rows`, with their frames."""
    probabilities, guesses = predicted.probabilities, predicted.predictions
    return [
        Mistake(
            clip_id=predicted.clip_ids[row],
            video=predicted.videos[row],
            label_name=labels.label_names[predicted.labels[row]],
            predicted_name=labels.label_names[guesses[row]],
            confidence=float(probabilities[row, guesses[row]]),
            label_confidence=float(probabilities[row, predicted.labels[row]]),
            strip=film_strip(samples[int(row)].media[0].frames),
        )
        for row in rows
    ]


def film_strip(frames: NDArray[np.uint8]) -> str:
    """Up to eight evenly spread frames of (num_frames, height, width, 3) side by side, as a data: URI of a JPEG."""
    shown = frames[np.linspace(0, len(frames) - 1, min(len(frames), _FRAMES_SHOWN)).round().astype(int)]
    width = round(frames.shape[2] * _FRAME_HEIGHT / frames.shape[1])
    images = [Image.fromarray(frame).resize((width, _FRAME_HEIGHT)) for frame in shown]
    strip = Image.new("RGB", (len(images) * (width + 2) - 2, _FRAME_HEIGHT), "white")
    for position, image in enumerate(images):
        strip.paste(image, (position * (width + 2), 0))
    buffer = io.BytesIO()
    strip.save(buffer, format="JPEG", quality=85)
    return _data_uri(buffer.getvalue(), "image/jpeg")


def write_class_table(path: Path, classes: Sequence[ClassMetrics]) -> None:
    """Writes `per_class.csv`."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(ClassMetrics.model_fields))
        writer.writeheader()
        writer.writerows(row.model_dump() for row in classes)


def _data_uri(content: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
