"""Videos: probe, sample, decode, resize. Preparation and the predictor read clips through the same `load_clips`."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Protocol

import numpy as np

from ivcp import storage
from ivcp.settings import VideoConfig
from ivcp.video.backends import decode_places, needs_whole_video
from ivcp.video.clip_frames import ClipFrames
from ivcp.video.decoders import Decoded, Frames, Look, Resize, VideoReader, probe_video
from ivcp.video.decoders import frame_times as video_times
from ivcp.video.files import VideoError, VideoInfo
from ivcp.video.frame_images import count_images, decode_images, probe_images
from ivcp.video.sampling import ChosenFrames, Span, Timeline, choose_frames, sample_indices, sampled_candidate
from ivcp.video.sounds import with_tracks

__all__ = [
    "ClipFrames",
    "Span",
    "VideoError",
    "VideoInfo",
    "decode",
    "frame_times",
    "load_clip",
    "load_clips",
    "probe",
    "sample_indices",
]

Source = str | Path | Sequence[str]
"""A path or s3:// URI of a video, or of its frame images in order."""
_Choices = list[ChosenFrames | VideoError]
_WORTH_READING_SECONDS = 10.0
"""Spans nearer to each other than this are read as one stretch."""


class FrameSizes(Protocol):
    """What reading clips asks of a model's processor."""

    video: VideoConfig

    def frame_size(self, height: int, width: int) -> tuple[int, int]:
        """The (height, width) in pixels that frames of this size are resized to."""


def load_clips(
    source: Source,
    spans: Sequence[Span],
    *,
    processor: FrameSizes,
    images_fps: float | None = None,
    max_seconds: float | None = None,
) -> tuple[ClipFrames | VideoError, ...]:
    """Samples, decodes and resizes clips of one video by the processor's video settings, in the order of `spans`.

    The file is opened once, and each stretch that clips share is decoded once. A clip that lies outside the video is a
    `VideoError` in its place. Frame images were taken `images_fps` per second, null is the settings' `video_fps`. A
    video that says it is longer than `max_seconds` is not decoded.

    Raises:
        VideoError: the video cannot be used for any clip; `reason` says why.
    """
    try:
        with _local(source) as paths:
            if isinstance(paths, list):
                clips = _load_image_clips(paths, spans, processor, fps=images_fps or processor.video.video_fps)
            else:
                clips = _load_file_clips(paths, spans, processor, max_seconds=max_seconds)
            return with_tracks(paths, clips, processor.video)
    except MemoryError as error:
        raise VideoError("out_of_memory", "its frames take more memory than there is") from error


def _load_file_clips(
    path: Path, spans: Sequence[Span], processor: FrameSizes, *, max_seconds: float | None
) -> tuple[ClipFrames | VideoError, ...]:
    with VideoReader.open(path) as reader:
        check_duration(reader.info, max_seconds)
        resize = _resize_to(processor.frame_size(reader.info.height, reader.info.width))
        clips = _load_stretches(reader, spans, processor.video, resize) if reader.can_seek else None
        return clips or _load_whole(reader, spans, processor.video, resize)


def load_clip(
    source: Source,
    *,
    processor: FrameSizes,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
) -> ClipFrames:
    """One clip, as `load_clips` reads it.

    Raises:
        VideoError: the video cannot be used, or does not hold the clip.
    """
    (clip,) = load_clips(source, [Span(start_seconds, end_seconds)], processor=processor)
    if isinstance(clip, VideoError):
        raise clip
    return clip


def check_duration(info: VideoInfo, max_seconds: float | None) -> None:
    """Raises:
    VideoError: the video says that it is longer than `max_seconds`; null allows any.
    """
    if max_seconds is not None and (info.duration_seconds or 0.0) > max_seconds:
        raise VideoError(
            "too_large", f"{info.duration_seconds:.1f} s long, expected at most {max_seconds:g} s: send a part of it"
        )


def _load_stretches(
    reader: VideoReader, spans: Sequence[Span], video: VideoConfig, resize: Resize
) -> tuple[ClipFrames | VideoError, ...] | None:
    """Reads no more of the file than the spans need; null where that does not lead to every frame."""
    clips: dict[int, ClipFrames | VideoError] = {}
    for start, end, members in _stretches(spans, whole=needs_whole_video(video.video_backend, reader.info)):
        try:
            packets = reader.packets(start, end)
        except LookupError:
            return None
        if not packets.are_exact:
            return None
        timeline = reader.timeline(packets)
        chosen = _choose_all(timeline, [spans[member] for member in members], video)
        if not (wanted := _union(chosen)):
            clips.update(zip(members, _errors(chosen), strict=True))
            continue
        try:
            decoded = decode_places(reader, packets, wanted, resize, video.video_backend)
        except LookupError:
            return None
        is_whole = start is None and end is None
        found = _clips(decoded, chosen, reader.info.fps, packets.num_frames if is_whole else None)
        clips.update(zip(members, found, strict=True))
    return tuple(clips[member] for member in range(len(spans)))


def _load_whole(
    reader: VideoReader, spans: Sequence[Span], video: VideoConfig, resize: Resize
) -> tuple[ClipFrames | VideoError, ...]:
    """Decodes the whole video: frames are found by counting, whatever their packets say."""
    timeline = reader.timeline(reader.all_packets())
    chosen = _choose_all(timeline, spans, video)
    frames, counted = reader.decode_all(_union(chosen), resize)
    if frames is None or not counted.is_like(timeline):  # interlaced, cut or damaged: as decoding found it
        chosen = _choose_all(counted, spans, video)
        if not _union(chosen):
            return _errors(chosen)
        frames, counted = reader.decode_all(_union(chosen), resize)
    if frames is None:
        raise VideoError("wrong_count", f"{len(counted.seconds)} frames, and more when it was decoded before")
    total = len(counted.seconds)
    return _clips(Decoded(frames, total, "pyav"), chosen, reader.info.fps, total)


def _load_image_clips(
    paths: list[Path], spans: Sequence[Span], processor: FrameSizes, *, fps: float
) -> tuple[ClipFrames | VideoError, ...]:
    info = probe_images(paths, fps=fps)
    chosen = _choose_all(Timeline.even(info.num_frames, info.fps), spans, processor.video)
    if not _union(chosen):
        return _errors(chosen)
    decoded = decode_images(paths, _union(chosen), _resize_to(processor.frame_size(info.height, info.width)))
    return _clips(decoded, chosen, info.fps, info.num_frames)


def _stretches(spans: Sequence[Span], *, whole: bool) -> Iterator[tuple[float | None, float | None, list[int]]]:
    """Start and end in seconds (null is the video's) of what has to be read, and the numbers of its spans."""
    if whole:
        yield None, None, list(range(len(spans)))
        return
    bounds = [(span.start_seconds or 0.0, span.end_seconds or math.inf) for span in spans]
    order = sorted(range(len(spans)), key=lambda number: bounds[number])
    members: list[int] = []
    end = -math.inf
    for number in order:
        if members and bounds[number][0] > end + _WORTH_READING_SECONDS:
            yield *_open_bounds(bounds[members[0]][0], end), members
            members, end = [], -math.inf
        members.append(number)
        end = max(end, bounds[number][1])
    yield *_open_bounds(bounds[members[0]][0], end), members


def _open_bounds(start: float, end: float) -> tuple[float | None, float | None]:
    return start or None, None if math.isinf(end) else end


def _choose_all(timeline: Timeline, spans: Sequence[Span], video: VideoConfig) -> _Choices:
    chosen: _Choices = []
    for span in spans:
        try:
            chosen.append(choose_frames(timeline, span, video))
        except VideoError as error:
            chosen.append(error)
    return chosen


def _union(chosen: _Choices) -> list[int]:
    """The places that any clip wants, ascending; none where no clip lies in the video."""
    return sorted({place for choice in chosen if isinstance(choice, ChosenFrames) for place in choice.places})


def _errors(chosen: _Choices) -> tuple[VideoError, ...]:
    return tuple(choice for choice in chosen if isinstance(choice, VideoError))


def _clips(
    decoded: Decoded, chosen: _Choices, fps: float, video_frames: int | None
) -> tuple[ClipFrames | VideoError, ...]:
    rows = {place: row for row, place in enumerate(_union(chosen))}
    return tuple(
        choice if isinstance(choice, VideoError) else _clip(decoded, choice, rows, fps, video_frames)
        for choice in chosen
    )


def _clip(
    decoded: Decoded, choice: ChosenFrames, rows: dict[int, int], fps: float, video_frames: int | None
) -> ClipFrames:
    candidates = decoded.frames[[rows[place] for place in choice.places]]
    return ClipFrames(
        frames=candidates[sampled_candidate(choice.num_candidates) :: choice.num_candidates],
        frame_indices=choice.frame_indices,
        frame_seconds=choice.frame_seconds,
        source_fps=fps,
        total_frames=choice.total_frames,
        video_frames=video_frames,
        backend=decoded.backend,
        candidates=candidates,
        span_seconds=choice.span_seconds,
    )


def probe(source: Source, *, images_fps: float = 2.0) -> VideoInfo:
    """What the video says of itself. Frame images have no rate of their own: theirs is `images_fps`.

    Raises:
        VideoError: it is missing, empty, encrypted, no video, or has no frame.
    """
    with _local(source) as paths:
        return probe_images(paths, fps=images_fps) if isinstance(paths, list) else probe_video(paths)


def frame_times(
    source: Source, info: VideoInfo, *, look_at: Collection[int] = (), look: Look | None = None
) -> Timeline:
    """Decodes the whole video, and says when its frames are shown; shows the frames numbered `look_at` to `look`.

    Raises:
        VideoError: decoding fails somewhere, or the file ends before the video does.
    """
    with _local(source) as paths:
        if isinstance(paths, list):
            return Timeline.even(count_images(paths, look_at=look_at, look=look), info.fps)
        return video_times(paths, info, look_at=look_at, look=look)


def decode(source: Source, indices: Sequence[int], *, info: VideoInfo, size: tuple[int, int] | None = None) -> Decoded:
    """Frames at `indices` (ascending) of the whole video, resized to `size` = (height, width) where it is given.

    Raises:
        VideoError: decoding fails, or there are fewer frames.
    """
    resize = _resize_to(size or (info.height, info.width))
    with _local(source) as paths:
        if isinstance(paths, list):
            return decode_images(paths, indices, resize)
        return _decode_file(paths, indices, resize)


def _decode_file(path: Path, indices: Sequence[int], resize: Resize) -> Decoded:
    with VideoReader.open(path) as reader:
        with suppress(LookupError):
            packets = reader.packets()
            if reader.can_seek and packets.are_exact and indices[-1] < packets.num_frames:
                return Decoded(reader.decode_exact(packets, indices, resize), packets.num_frames, "pyav")
        frames, timeline = reader.decode_all(indices, resize)
    if frames is None:
        raise VideoError("wrong_count", f"{len(timeline.seconds)} frames decoded, frame {indices[-1]} wanted")
    return Decoded(frames, len(timeline.seconds), "pyav")


def _resize_to(size: tuple[int, int]) -> Resize:
    return lambda frames: resize_frames(frames, size)


def resize_frames(frames: Frames, size: tuple[int, int]) -> Frames:
    """Bicubic with anti-aliasing, on 8-bit pixels, to (height, width): within 1 of Pillow and seven times as fast."""
    if frames.shape[1:3] == size:
        return frames
    import torch  # here, because processes that only probe videos do without its seconds of import

    pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
    sized = torch.nn.functional.interpolate(pixels, size=size, mode="bicubic", antialias=True)
    resized: Frames = sized.permute(0, 2, 3, 1).contiguous().numpy()
    return resized


@contextmanager
def _local(source: Source) -> Iterator[Path | list[Path]]:
    """The local file or files, which the download cache keeps for the time of the block."""
    with ExitStack() as files:
        try:
            parts = [source] if isinstance(source, str | Path) else source
            paths = [files.enter_context(storage.borrowed(part)) for part in parts]
        except FileNotFoundError as error:
            raise VideoError("missing", str(error)) from error
        yield paths[0] if isinstance(source, str | Path) else paths
