"""Rows of predictions."""

from __future__ import annotations

from ivcp.records.record import Record


class Prediction(Record):
    """One row of `predictions.jsonl`."""

    clip_id: str
    video: str
    label: int | None
    prediction: int | None
    """Null for a clip that could not be decoded."""
    label_name: str | None
    predicted_name: str | None
    confidence: float
    """Probability of the prediction, as the predictor gives it: calibrated where the model is; 0 for a clip that could
    not be decoded."""
    logits: tuple[float, ...]
    """Empty for a clip that could not be decoded."""
