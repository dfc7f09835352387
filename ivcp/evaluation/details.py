"""What the report says besides the figures: where the model comes from, and which clips to look at."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ivcp.evaluation.label_issues import find_label_issues
from ivcp.evaluation.predict import PredictedSplit
from ivcp.records import Labels, PreparedIndex
from ivcp.records.evaluation_details import ConfusedPair, Curve, EvaluationDetails
from ivcp.settings import RunConfig
from ivcp.tracking.described import shown_settings

_STATE_FILE = "trainer_state.json"
"""transformers' own, in an adapter directory."""
_CURVES = ("loss", "eval_loss", "eval_top1_accuracy", "learning_rate", "grad_norm")
_MOST_POINTS = 400
_CONFUSED_SHOWN, _UNCERTAIN_SHOWN = 15, 12


def describe_evaluation(
    config: RunConfig, *, directory: Path, index: PreparedIndex, predicted: PredictedSplit
) -> EvaluationDetails:
    """The details of a classifier's evaluation; `directory` is the model's own."""
    return EvaluationDetails(
        base_model=config.model.model_name_or_path or "",
        data_sets=config.data.dataset,
        num_clips=index.num_clips,
        settings=shown_settings(config),
        curves=read_curves(directory),
        confused=_confused(predicted, index.classes),
        label_issues=find_label_issues(predicted, index.classes),
        uncertain=tuple(predicted.clip_ids[row] for row in most_uncertain(predicted)),
    )


def most_uncertain(predicted: PredictedSplit) -> NDArray[np.int64]:
    """Rows of the clips with the least difference between the two best classes, the least first."""
    probabilities = np.sort(predicted.probabilities, axis=1)
    if not len(probabilities) or probabilities.shape[1] < 2:
        return np.zeros(0, dtype=np.int64)
    lead = probabilities[:, -1] - probabilities[:, -2]
    return np.asarray(np.argsort(lead, kind="stable")[:_UNCERTAIN_SHOWN])


def read_curves(directory: Path) -> tuple[Curve, ...]:
    """The curves of the training that wrote an adapter directory; none where it says nothing of it."""
    file = directory / _STATE_FILE
    if not file.is_file():
        return ()
    rows: Sequence[Mapping[str, Any]] = json.loads(file.read_text(encoding="utf-8")).get("log_history", ())
    names = [name for name in _CURVES if any(name in row for row in rows)]
    names += sorted({name for row in rows for name in row if name.startswith("learning_rate/")})
    curves = (_curve(name, ((row["step"], row[name]) for row in rows if name in row)) for name in names)
    return tuple(curve for curve in curves if curve.steps)


def _curve(name: str, points: Iterable[tuple[int, float]]) -> Curve:
    finite = [(int(step), float(value)) for step, value in points if math.isfinite(float(value))]
    kept = finite[:: max(1, math.ceil(len(finite) / _MOST_POINTS))]
    if finite and kept[-1] != finite[-1]:
        kept.append(finite[-1])
    return Curve(name=name, steps=tuple(step for step, _ in kept), values=tuple(value for _, value in kept))


def _confused(predicted: PredictedSplit, labels: Labels) -> tuple[ConfusedPair, ...]:
    wrong = predicted.predictions != predicted.labels
    pairs = np.stack([predicted.labels[wrong], predicted.predictions[wrong]], axis=1)
    found, counts = np.unique(pairs, axis=0, return_counts=True)
    return tuple(
        ConfusedPair(
            label_name=labels.label_names[found[at, 0]],
            predicted_name=labels.label_names[found[at, 1]],
            num_clips=int(counts[at]),
        )
        for at in np.argsort(-counts, kind="stable")[:_CONFUSED_SHOWN]
    )
