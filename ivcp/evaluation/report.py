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
from numpy.typing import NDArray
from PIL import Image

from ivcp.evaluation.predict import PredictedSplit
from ivcp.inference.loop import Samples
from ivcp.records import Labels, QuarantinedClip
from ivcp.records.evaluation import ClassMetrics, EvaluationMetrics
from ivcp.storage.atomic import write_whole

_FRAMES_SHOWN = 8
_FRAME_HEIGHT = 96
_MISTAKES_SHOWN = 12


@dataclass(frozen=True)
class Mistake:
    """A wrong prediction as the report shows it."""

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
) -> None:
    """Renders `report.html`; it refers to no other file.

    `confidence_picture` belongs to `metrics.confidence`, and is null with it.
    """
    matrix = np.asarray(metrics.confusion_matrix)
    num_wrong = int(matrix.sum() - matrix.trace())
    html = (
        templates()
        .get_template("report_template.html")
        .render(
            title=title,
            metrics=metrics,
            mistakes=mistakes,
            failed=failed,
            confusion_picture=_data_uri(confusion_picture.read_bytes(), "image/png"),
            confidence_picture=_data_uri(confidence_picture.read_bytes(), "image/png") if confidence_picture else None,
            num_wrong=num_wrong,
        )
    )
    write_whole(path, html)


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
        for row in surest
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
