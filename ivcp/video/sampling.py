"""Which frames of a video are looked at: evenly in time, within a clip's span."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ivcp.settings import VideoConfig
from ivcp.video.files import VideoError

_TOLERANCE = 1e-3
"""Seconds that a span's ends may miss a frame's time by, which containers round."""


@dataclass(frozen=True)
class Span:
    """The part of a video that is a clip."""

    start_seconds: float | None = None
    """Null is the video's start."""
    end_seconds: float | None = None
    """Null is the video's end."""
    candidates: int = 1
    """Frames that are wanted around each sampled moment, itself among them."""


@dataclass(frozen=True)
class Timeline:
    """When the frames of a video, or of a stretch of it, are shown."""

    seconds: NDArray[np.float64]
    """(num_frames,), ascending."""
    fps: float

    @classmethod
    def even(cls, num_frames: int, fps: float) -> Timeline:
        """All frames are shown for the same time."""
        return cls(np.arange(num_frames) / fps, fps)

    @property
    def is_even(self) -> bool:
        """Whether frames are shown equally long, to half of that time."""
        return _is_even(self.seconds)

    def is_like(self, other: Timeline) -> bool:
        """Whether the same frames are shown, to half of a frame's time."""
        same_number = len(self.seconds) == len(other.seconds)
        return same_number and bool(np.abs(self.seconds - other.seconds).max(initial=0) <= 0.5 / self.fps)

    @property
    def end_seconds(self) -> float:
        """When the last frame ends."""
        return float(self.seconds[-1]) + 1 / self.fps


@dataclass(frozen=True)
class ChosenFrames:
    """The frames of one clip, by their place in a `Timeline`."""

    places: tuple[int, ...]
    """Ascending; with candidates, those of a moment together."""
    num_candidates: int
    frame_indices: tuple[int, ...]
    """Where the sampled ones stand in the clip, in frames of the video's average rate."""
    frame_seconds: tuple[float, ...]
    """When in the video the sampled ones are shown."""
    total_frames: int
    """Frames of the clip."""
    span_seconds: tuple[float, float]
    """When the clip begins and ends, in seconds of the video: its first frame and the end of its last one."""


def choose_frames(timeline: Timeline, span: Span, video: VideoConfig) -> ChosenFrames:
    """The frames of a clip that are looked at.

    Raises:
        VideoError: the span lies outside the video.
    """
    if not len(timeline.seconds):
        raise VideoError("zero_frames", "the video has no frame that is shown")
    first, last = _frames_in(timeline, span)
    size = _sample_size(timeline, first, last, video)
    sampled, in_time = _sample(timeline.seconds[first:last], timeline.fps, size)
    count = span.candidates
    chosen = candidate_indices(sampled, last - first, count)
    return ChosenFrames(
        places=tuple(first + place for place in chosen),
        num_candidates=count,
        frame_indices=tuple(in_time),
        frame_seconds=tuple(float(timeline.seconds[first + place]) for place in sampled),
        total_frames=last - first,
        span_seconds=(float(timeline.seconds[first]), float(timeline.seconds[last - 1]) + 1 / timeline.fps),
    )


def sample_indices(
    num_frames: int,
    source_fps: float,
    video: VideoConfig,
    *,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
) -> tuple[int, ...]:
    """The frames of a clip that are looked at, ascending, in a video of `num_frames` at an even rate.

    `video_num_frames` of them, or `video_fps` per second: an even number from 2 to `video_maxlen`. They are the
    centres of equal spans, so that the reversed video gives the same frames in reverse. A clip that is too short
    repeats frames.

    Raises:
        VideoError: the span lies outside the video.
    """
    return choose_frames(Timeline.even(num_frames, source_fps), Span(start_seconds, end_seconds), video).places


def sampled_candidate(count: int) -> int:
    """Which of the `count` stored frames around a moment is the sampled one."""
    return (count - 1) // 2


def candidate_indices(sampled: Sequence[int], num_frames: int, count: int) -> tuple[int, ...]:
    """`count` frames around each of the `sampled` ones, ascending, in a clip of `num_frames`.

    They divide the way to the next sampled frame evenly; the one at `sampled_candidate(count)` is the sampled one.
    """
    way = (sampled[-1] - sampled[0]) / max(1, len(sampled) - 1)
    offsets = [round((place - sampled_candidate(count)) * way / count) for place in range(count)]
    return tuple(min(max(0, index + offset), num_frames - 1) for index in sampled for offset in offsets)


def _frames_in(timeline: Timeline, span: Span) -> tuple[int, int]:
    """From the frame that is shown at the span's start to before the first one at or after its end; at least one."""
    seconds, num_frames = timeline.seconds, len(timeline.seconds)
    if span.start_seconds is not None and span.start_seconds >= timeline.end_seconds - _TOLERANCE:
        raise VideoError(
            "span_outside_video",
            f"start_seconds = {span.start_seconds}, but the video ends at {timeline.end_seconds:.2f} s",
        )
    if span.end_seconds is not None and span.end_seconds <= (span.start_seconds or 0.0):
        raise VideoError("span_outside_video", f"end_seconds = {span.end_seconds} is not after the span's start")
    first = 0 if span.start_seconds is None else max(0, bisect_right(seconds, span.start_seconds + _TOLERANCE) - 1)
    last = num_frames if span.end_seconds is None else bisect_left(seconds, span.end_seconds - _TOLERANCE)
    return first, max(first + 1, last)


def _sample_size(timeline: Timeline, first: int, last: int, video: VideoConfig) -> int:
    if video.video_num_frames is not None:
        return video.video_num_frames
    duration = float(timeline.seconds[last - 1] - timeline.seconds[first]) + 1 / timeline.fps
    wanted = min(round(duration * video.video_fps), last - first, video.video_maxlen)
    return max(2, wanted - wanted % 2)


def _sample(seconds: NDArray[np.float64], fps: float, size: int) -> tuple[list[int], list[int]]:
    """Places of the sampled frames of a clip, and those places in time: in frames of the rate `fps`.

    Where frames are shown equally long they are counted; else it is what is shown at the centres of equal times.
    """
    if _is_even(seconds):
        places = _spread(len(seconds), size)
        return places, places
    duration = seconds[-1] - seconds[0] + 1 / fps
    moments = seconds[0] + (np.arange(size) + 0.5) * duration / size
    places = [int(place) - 1 for place in np.searchsorted(seconds, moments, side="right")]
    return places, [round(float(seconds[place] - seconds[0]) * fps) for place in places]


def _is_even(seconds: NDArray[np.float64]) -> bool:
    even = np.linspace(seconds[0], seconds[-1], len(seconds))
    gap = (seconds[-1] - seconds[0]) / max(1, len(seconds) - 1)
    return bool(np.abs(seconds - even).max() <= gap / 2)


def _spread(num_frames: int, size: int) -> list[int]:
    """Centres of `size` equal spans; the second half mirrors the first, which rounding alone would not do."""
    half = [(2 * i + 1) * num_frames // (2 * size) for i in range(size // 2)]
    centre = [(num_frames - 1) // 2] if size % 2 else []
    return [*half, *centre, *(num_frames - 1 - index for index in reversed(half))]
