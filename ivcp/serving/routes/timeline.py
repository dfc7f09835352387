"""What happens when in a long video: windows over one decoding, and segments of one class."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from ivcp.records.answers import (
    Timeline,
    TimelineSegment,
    TimelineSegments,
    TimelineStart,
    TimelineWindow,
)
from ivcp.serving.decoding import ReadClip, ReadClips
from ivcp.serving.http.problems import ProblemError, problem_of
from ivcp.serving.http.requests import TimelineOptions, TimelineRequest, received
from ivcp.serving.http.timings import current_timings
from ivcp.serving.predictor import Predictor
from ivcp.serving.routes.next_event import EVENTS, next_event
from ivcp.serving.routes.openapi import OF_PREDICTIONS, body_of
from ivcp.serving.segments import Segment, merge_each_class, merge_windows, windows_over
from ivcp.serving.served import VideoSource
from ivcp.serving.served_model import ServedModel
from ivcp.serving.service import ClassifierService
from ivcp.video import Span, VideoError

_WINDOW_SECONDS = 2.0
"""Where it is not known what the training clips lasted."""
_WINDOWS_AT_ONCE = 16
"""That are decoded by one call: neighbours share what is read."""
_FRAME_BYTES_AT_ONCE = 256 * 1024**2
"""Of one call where each decodes the whole video, as for files that cannot be sought: the fewer calls the better."""
_CALLS_AHEAD = 2
_TOO_LATE = (
    "its other windows were not computed in time (X-Deadline-Seconds, request_timeout_seconds): ask for a part of the "
    "video (start_seconds, end_seconds), or take a longer stride"
)
Event = TimelineStart | TimelineWindow | TimelineSegments


def routes(service: ClassifierService) -> APIRouter:
    """Of `/v1/timeline`."""
    router = APIRouter(tags=["predictions"])

    @router.post(
        "/v1/timeline",
        response_model=Timeline,
        responses={**OF_PREDICTIONS, 200: {"content": {EVENTS: {"schema": {"type": "string"}}}}},
        openapi_extra=body_of(TimelineOptions, TimelineRequest, {"uri": "s3://clips/day.mp4", "window_seconds": 2}),
    )
    async def timeline(request: Request) -> Any:
        """Classifies windows of a video, and says which stretches show what.

        With `Accept: text/event-stream` each window is sent as soon as it is known.
        """
        async with AsyncExitStack() as kept:
            video, asked = await kept.enter_async_context(received(request, service, TimelineOptions, TimelineRequest))
            model = kept.enter_context(service.using(asked.model))
            current_timings().model = model.predictor.name
            events = _Timeline(model, video, asked, service.settings.max_windows).events()
            if EVENTS not in request.headers.get("accept", ""):
                async with aclosing(events):
                    return await _whole(events)
            first = await anext(events)  # what is wrong with the request is an ordinary error
            stream = _stream(first, events, kept.pop_all(), request.state.request_id)
            return StreamingResponse(stream, media_type=EVENTS, headers={"Cache-Control": "no-store"})

    return router


def window_seconds_of(predictor: Predictor) -> float:
    """What a window lasts unless a request says otherwise: what a training clip did."""
    return predictor.model.info.clip_seconds or _WINDOW_SECONDS


@dataclass
class _Timeline:
    """One video that is looked at in windows."""

    model: ServedModel
    video: VideoSource
    asked: TimelineOptions
    max_windows: int
    probabilities: list[Any] = field(default_factory=list)
    spans: list[tuple[float, float]] = field(default_factory=list)

    async def events(self) -> AsyncGenerator[Event]:
        """The start, each window in order, and the segments.

        Raises:
            PromptError, VideoError, DecoderError, NonFiniteError, ProblemError: as a prediction does.
        """
        windows = await self._start()
        yield TimelineStart(
            duration_seconds=self.duration,
            num_windows=len(windows),
            window_seconds=self.window,
            stride_seconds=self.stride,
            model=self.model.predictor.identity,
        )
        async with aclosing(self._read(windows)) as parts:
            async for spans, clips in parts:
                for window in await self._computed(spans, clips):
                    yield window
        if not self.spans:
            raise VideoError("zero_frames", "no window of the video has a frame")
        yield TimelineSegments(segments=self._segments())

    async def _start(self) -> list[Span]:
        asked = self.asked
        self.model.request(self.video, prompt=asked.prompt, spans=())  # a prompt that does not fit is said first
        self.duration = (await self.model.length(self.video)).seconds
        self.window = asked.window_seconds or window_seconds_of(self.model.predictor)
        self.stride = asked.stride_seconds or self.window / 2
        start, end = asked.start_seconds or 0.0, min(asked.end_seconds or self.duration, self.duration)
        if start >= end:
            raise VideoError("span_outside_video", f"it begins at {start:g} s, the video ends at {self.duration:g} s")
        number = (end - start) / self.stride
        if number > self.max_windows:
            raise ProblemError(
                "bad_request_fields",
                f"stride_seconds: {number:.0f} windows, expected at most {self.max_windows} (max_windows): "
                "take a longer stride, or a part of the video",
            )
        windows = windows_over(start, end, window_seconds=self.window, stride_seconds=self.stride)
        if end == self.duration:  # files may show a frame when they say that they have ended
            windows[-1] = Span(windows[-1].start_seconds, asked.end_seconds)
        return windows

    async def _read(self, windows: list[Span]) -> AsyncGenerator[tuple[list[Span], ReadClips]]:
        """Decoded windows in their order, some calls ahead of what is computed."""
        timings = current_timings()
        rest, size = deque(windows), _WINDOWS_AT_ONCE
        coming: deque[tuple[list[Span], asyncio.Task[ReadClips]]] = deque()
        try:
            while rest or coming:
                while rest and len(coming) < _CALLS_AHEAD:
                    spans = [rest.popleft() for _ in range(min(size, len(rest)))]
                    request = self.model.request(self.video, prompt=self.asked.prompt, spans=tuple(spans))
                    coming.append((spans, asyncio.create_task(self.model.read(request, timings))))
                spans, task = coming.popleft()
                clips = await task
                size = max(size, _worth_reading_at_once(clips))
                yield spans, clips
        finally:
            for _, task in coming:
                task.cancel()

    async def _computed(self, spans: list[Span], clips: ReadClips) -> list[TimelineWindow]:
        timings = current_timings()
        found = [(span, clip) for span, clip in zip(spans, clips, strict=True) if not isinstance(clip, VideoError)]
        if not found and len(spans) and not self.spans:
            raise next(clip for clip in clips if isinstance(clip, VideoError))
        computed = await asyncio.gather(*(self.model.compute(clip.sample, timings) for _, clip in found))
        windows = []
        for (span, clip), one in zip(found, computed, strict=True):
            answer = self.model.predictor.answer(one.logits, clip, top_k=self.asked.top_k, seconds=one.model_seconds)
            bounds = span.start_seconds or 0.0, min(span.end_seconds or self.duration, self.duration)
            self.spans.append(bounds)
            self.probabilities.append(self.model.predictor.model.probabilities(one.logits).numpy())
            windows.append(
                TimelineWindow(
                    start_seconds=round(bounds[0], 3),
                    end_seconds=round(bounds[1], 3),
                    label=answer.label,
                    label_name=answer.label_name,
                    confidence=answer.confidence,
                    unsure=answer.unsure,
                    top=answer.top,
                    labels=answer.labels,
                    heads=answer.heads,
                    value=answer.value,
                )
            )
        return windows

    def _segments(self) -> tuple[TimelineSegment, ...]:
        """Of one class; of each class by itself, where there may be several; of each head; and none of a number."""
        model, probabilities = self.model.predictor.model, np.stack(self.probabilities)
        labels = model.labels
        match labels.kind:
            case "value":
                return ()
            case "classes":
                found = merge_each_class(self.spans, probabilities, thresholds=model.shown_from)
                return _named(found, labels.label_names)
            case "heads":
                return tuple(
                    segment
                    for head, outputs in zip(labels.heads, labels.outputs_of_heads, strict=True)
                    for segment in _named(
                        merge_windows(self.spans, probabilities[:, outputs], unsure_below=None),
                        head.label_names,
                        head=head.name,
                    )
                )
        threshold = model.calibration.unsure_below if model.calibration else None
        return _named(merge_windows(self.spans, probabilities, unsure_below=threshold), labels.label_names)


def _named(
    segments: Sequence[Segment], names: Sequence[str], *, head: str | None = None
) -> tuple[TimelineSegment, ...]:
    return tuple(
        TimelineSegment(
            start_seconds=round(segment.start_seconds, 3),
            end_seconds=round(segment.end_seconds, 3),
            label=segment.label,
            label_name=None if segment.label is None else names[segment.label],
            confidence=segment.confidence,
            head=head,
        )
        for segment in segments
    )


def _worth_reading_at_once(clips: ReadClips) -> int:
    """Windows like these that one call should decode."""
    whole = [clip for clip in clips if isinstance(clip, ReadClip) and clip.needed_whole_video]
    num_bytes = [sum(medium.frames.nbytes for medium in clip.sample.media) for clip in whole]
    return _FRAME_BYTES_AT_ONCE // max(num_bytes) if num_bytes else _WINDOWS_AT_ONCE


async def _whole(events: AsyncIterator[Event]) -> Timeline:
    start: TimelineStart | None = None
    windows: list[TimelineWindow] = []
    segments: tuple[TimelineSegment, ...] = ()
    async for event in events:
        match event:
            case TimelineStart():
                start = event
            case TimelineWindow():
                windows.append(event)
            case TimelineSegments():
                segments = event.segments
    assert start is not None
    return Timeline(
        duration_seconds=start.duration_seconds,
        window_seconds=start.window_seconds,
        stride_seconds=start.stride_seconds,
        windows=tuple(windows),
        segments=segments,
        model=start.model,
    )


async def _stream(
    first: Event, events: AsyncIterator[Event], kept: AsyncExitStack, request_id: str
) -> AsyncIterator[bytes]:
    """Server-sent events; what goes wrong on the way is the last one."""
    async with kept:
        yield _event(first)
        try:
            while (event := await next_event(events, too_late=_TOO_LATE)) is not None:
                yield _event(event)
        except Exception as error:
            problem = problem_of(error)
            if problem is None:
                raise
            current_timings().code = problem.code
            yield f"event: error\ndata: {json.dumps(problem.body(request_id))}\n\n".encode()


_NAMES: dict[type[BaseModel], str] = {TimelineStart: "start", TimelineWindow: "window", TimelineSegments: "segments"}


def _event(event: Event) -> bytes:
    return f"event: {_NAMES[type(event)]}\ndata: {event.model_dump_json()}\n\n".encode()
