"""From windows over a long video to segments of one class."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ivcp.video import Span

_SHORTEST_SHARE = 0.5
"""A last window with less of a window's length is not looked at: its end belongs to the one before."""

_DIGITS = 6
"""Of seconds: sums of strides meet the ends of windows only so far."""


@dataclass(frozen=True)
class Segment:
    """A stretch of a video that is taken for one class."""

    start_seconds: float
    end_seconds: float
    label: int | None
    """Null where no class is sure."""
    confidence: float
    """Mean of the calibrated probability of its class; where no class is sure, of the likeliest."""


def windows_over(start: float, end: float, *, window_seconds: float, stride_seconds: float) -> list[Span]:
    """Windows from `start` to `end`, in seconds; the last one ends with the video."""
    length = end - start
    if length <= window_seconds:
        return [Span(start or None, end)]
    count = 1 + math.ceil((length - window_seconds) / stride_seconds - 1e-9)
    spans = [start + number * stride_seconds for number in range(count)]
    windows = [Span(at or None, min(at + window_seconds, end)) for at in spans]
    if end - spans[-1] < _SHORTEST_SHARE * window_seconds:
        windows[-1] = Span(end - window_seconds, end)
    return windows


def merge_windows(
    windows: Sequence[tuple[float, float]], probabilities: NDArray[np.float64], *, unsure_below: float | None
) -> list[Segment]:
    """Segments of one class.

    Every moment is given the mean of the probabilities of the windows over it; neighbouring moments of the same
    likeliest class are one segment. A moment whose likeliest class stays below `unsure_below` has no class.

    Args:
        windows: start and end of each, in seconds.
        probabilities: (windows, classes), calibrated.
        unsure_below: the model's threshold; null takes every class for sure.
    """
    moments: list[Segment] = []
    for start, end, mean in _moments(windows, probabilities):
        label, confidence = int(mean.argmax()), float(mean.max())
        is_sure = unsure_below is None or confidence >= unsure_below
        moments.append(Segment(start, end, label if is_sure else None, confidence))
    return _joined(moments)


def merge_each_class(
    windows: Sequence[tuple[float, float]], probabilities: NDArray[np.float64], *, thresholds: Sequence[float]
) -> list[Segment]:
    """Segments of each class by itself, where a clip may show several: they overlap, and begin in this order.

    A class is shown at the moments at which the mean of its probabilities reaches its threshold.

    Args:
        windows: start and end of each, in seconds.
        probabilities: (windows, classes).
        thresholds: of each class, by label.
    """
    moments = list(_moments(windows, probabilities))
    found: list[Segment] = []
    for label, least in enumerate(thresholds):
        found += _joined(
            [Segment(start, end, label, float(mean[label])) for start, end, mean in moments if mean[label] >= least]
        )
    return sorted(found, key=lambda segment: (segment.start_seconds, segment.label))


def _moments(
    windows: Sequence[tuple[float, float]], probabilities: NDArray[np.float64]
) -> Iterator[tuple[float, float, NDArray[np.float64]]]:
    """Stretches over which the same windows lie, with the mean of their probabilities, (classes,)."""
    begins, ends = np.round(np.asarray(windows, dtype=np.float64), _DIGITS).T
    for start, end in pairwise(np.unique([begins, ends]).tolist()):
        over = (begins <= start) & (end <= ends)
        if over.any():
            yield start, end, probabilities[over].mean(axis=0)


def _joined(moments: Sequence[Segment]) -> list[Segment]:
    segments: list[Segment] = []
    for moment in moments:
        last = segments[-1] if segments else None
        if last is None or last.label != moment.label or last.end_seconds < moment.start_seconds:
            segments.append(moment)
            continue
        before, more = last.end_seconds - last.start_seconds, moment.end_seconds - moment.start_seconds
        mean = (last.confidence * before + moment.confidence * more) / (before + more)
        segments[-1] = Segment(last.start_seconds, moment.end_seconds, last.label, mean)
    return segments
