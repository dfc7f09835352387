"""Rows of predictions."""

from __future__ import annotations

from pydantic import Field

from ivcp.records.record import Record


def _is_none(value: object) -> bool:
    return value is None


class ClipFacts(Record):
    """What there is to say of a clip beside its class: numbers are broken down by it."""

    dataset: str
    group: str = ""
    """What its group is known by: a hash, in hexadecimal digits; empty where it has none."""
    seconds: float | None = None
    """How long it lasts; null where it could not be decoded."""
    short_side: int | None = None
    """Pixels of its video's shorter side; null where that is not known."""
    backend: str | None = None
    """What decoded it: pyav, decord, torchcodec or images; null where nothing could."""


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
    facts: ClipFacts | None = Field(None, exclude_if=_is_none)
    """Null where an earlier version predicted."""
