"""Videos: probe, sample, decode, resize. Preparation and the predictor read clips through `load_clip` alike."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from components import storage
from components.config import VideoConfig
from components.frame_images import count_images, decode_images, probe_images
from components.shards import sampled_candidate
from components.video_decoders import Decoded, Frames, Look, Resize, VideoError, VideoInfo, decode_video, probe_video
from components.video_decoders import count_frames as count_video

if TYPE_CHECKING:
    from components.clip_processor import ClipProcessor

__all__ = [
    "ClipFrames",
    "Span",
    "VideoError",
    "VideoInfo",
    "count_frames",
    "decode",
    "load_clip",
    "load_clips",
    "probe",
    "sample_indices",
]

Source = str | Path | Sequence[str]
"""A path or s3:// URI of a video, or of its frame images in order."""


@dataclass(frozen=True)
class Span:
    """The part of a video that is a clip."""

    start_seconds: float | None = None
    """Null is the video's start."""
    end_seconds: float | None = None
    """Null is the video's end."""
    with_candidates: bool = False
    """Whether `video_frame_candidates` frames around each sampled moment are wanted."""


@dataclass(frozen=True)
class ClipFrames:
    """The sampled frames of one clip."""

    frames: Frames
    """(num_frames, height, width, 3)"""
    frame_indices: tuple[int, ...]
    """Where they stood in the video."""
    source_fps: float
    total_frames: int
    """Frames of the whole video."""
    backend: str
    """What decoded them: decord, pyav or images."""
    candidates: Frames
    """(num_frames * k, height, width, 3): k frames around each sampled moment, the sampled one among them."""

    @property
    def seconds_per_frame(self) -> float:
        """Seconds between two sampled frames, on average; 0 for a single frame."""
        span = self.frame_indices[-1] - self.frame_indices[0]
        return span / max(1, len(self.frame_indices) - 1) / self.source_fps


def load_clips(
    source: Source, spans: Sequence[Span], *, processor: ClipProcessor
) -> tuple[ClipFrames | VideoError, ...]:
    """Samples, decodes and resizes clips of one video by the processor's video settings, in the order of `spans`.

    The file is decoded once for all of them. A span that holds no frame is a `VideoError` in its place.

    Raises:
        VideoError: the video cannot be used for any clip; `reason` says why.
    """
    info = probe(source, images_fps=processor.video.video_fps)
    size = processor.frame_size(info.height, info.width)
    chosen = [_choose(info.num_frames, info.fps, span, processor.video) for span in spans]
    decoded, row_of = _decode_union(source, chosen, info, size)
    if decoded.total_frames != info.num_frames:  # packets and frames differ in number: interlaced or damaged video
        chosen = [_choose(decoded.total_frames, info.fps, span, processor.video) for span in spans]
        decoded, row_of = _decode_union(source, chosen, info, size)
    return tuple(
        indices
        if isinstance(indices, VideoError)
        else _clip_frames(decoded, [row_of[index] for index in indices], indices, info, count)
        for indices, count in zip(chosen, (_candidates(span, processor.video) for span in spans), strict=True)
    )


def load_clip(
    source: Source,
    *,
    processor: ClipProcessor,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
    with_candidates: bool = False,
) -> ClipFrames:
    """One clip, as `load_clips` reads it.

    Raises:
        VideoError: the video cannot be used, or holds no frame between `start_seconds` and `end_seconds`.
    """
    (clip,) = load_clips(source, [Span(start_seconds, end_seconds, with_candidates)], processor=processor)
    if isinstance(clip, VideoError):
        raise clip
    return clip


def _candidates(span: Span, video: VideoConfig) -> int:
    return video.video_frame_candidates if span.with_candidates else 1


def _choose(num_frames: int, fps: float, span: Span, video: VideoConfig) -> tuple[int, ...] | VideoError:
    try:
        sampled = sample_indices(num_frames, fps, video, start_seconds=span.start_seconds, end_seconds=span.end_seconds)
    except VideoError as error:
        return error
    return candidate_indices(sampled, num_frames, _candidates(span, video))


def _decode_union(
    source: Source, chosen: Sequence[tuple[int, ...] | VideoError], info: VideoInfo, size: tuple[int, int]
) -> tuple[Decoded, dict[int, int]]:
    """All frames that any clip wants, and the row of each."""
    wanted = sorted({index for indices in chosen if not isinstance(indices, VideoError) for index in indices})
    if not wanted:  # no span holds a frame
        raise next(error for error in chosen if isinstance(error, VideoError))
    decoded = decode(source, wanted, info=info, size=size)
    if decoded.total_frames == info.num_frames and len(decoded.frames) != len(wanted):
        raise VideoError("wrong_count", f"{len(decoded.frames)} frames decoded, {len(wanted)} sampled")
    return decoded, {index: row for row, index in enumerate(wanted)}


def _clip_frames(
    decoded: Decoded, rows: Sequence[int], indices: Sequence[int], info: VideoInfo, count: int
) -> ClipFrames:
    candidates = decoded.frames[list(rows)]
    sampled = slice(sampled_candidate(count), None, count)
    return ClipFrames(
        frames=candidates[sampled],
        frame_indices=tuple(indices[sampled]),
        source_fps=info.fps,
        total_frames=decoded.total_frames,
        backend=decoded.backend,
        candidates=candidates,
    )


def sample_indices(
    num_frames: int,
    source_fps: float,
    video: VideoConfig,
    *,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
) -> tuple[int, ...]:
    """The frames of a clip that are looked at, ascending, in a video of `num_frames`.

    `video_num_frames` of them, or `video_fps` per second: an even number from 2 to `video_maxlen`. They are the
    centres of equal spans, so that the reversed video gives the same frames in reverse. A clip that is too short
    repeats frames.

    Raises:
        VideoError: the video ends before `start_seconds`.
    """
    first = round((start_seconds or 0.0) * source_fps)
    last = num_frames if end_seconds is None else min(num_frames, math.ceil(end_seconds * source_fps))
    if first >= last:
        raise VideoError(
            "empty_span",
            f"start_seconds = {start_seconds}, end_seconds = {end_seconds} hold no frame: "
            f"the video has {num_frames} frames at {source_fps:.2f} per second",
        )
    return tuple(first + offset for offset in _spread(last - first, _sample_size(last - first, source_fps, video)))


def candidate_indices(sampled: Sequence[int], num_frames: int, count: int) -> tuple[int, ...]:
    """`count` frames around each of the `sampled` ones, ascending, in a video of `num_frames`.

    They divide the way to the next sampled frame evenly; the one at `sampled_candidate(count)` is the sampled one.
    """
    way = (sampled[-1] - sampled[0]) / max(1, len(sampled) - 1)
    offsets = [round((place - sampled_candidate(count)) * way / count) for place in range(count)]
    return tuple(min(max(0, index + offset), num_frames - 1) for index in sampled for offset in offsets)


def _sample_size(num_frames: int, source_fps: float, video: VideoConfig) -> int:
    if video.video_num_frames is not None:
        return video.video_num_frames
    wanted = min(round(num_frames / source_fps * video.video_fps), num_frames, video.video_maxlen)
    return max(2, wanted - wanted % 2)


def _spread(num_frames: int, size: int) -> list[int]:
    """Centres of `size` equal spans; the second half mirrors the first, which rounding alone would not do."""
    half = [(2 * i + 1) * num_frames // (2 * size) for i in range(size // 2)]
    centre = [(num_frames - 1) // 2] if size % 2 else []
    return [*half, *centre, *(num_frames - 1 - index for index in reversed(half))]


def probe(source: Source, *, images_fps: float = 2.0) -> VideoInfo:
    """What the video says of itself. Frame images have no rate of their own: theirs is `images_fps`.

    Raises:
        VideoError: it is missing, empty, encrypted, no video, or has no frame.
    """
    paths = _local(source)
    return probe_images(paths, fps=images_fps) if isinstance(paths, list) else probe_video(paths)


def count_frames(source: Source, info: VideoInfo, *, look_at: Collection[int] = (), look: Look | None = None) -> int:
    """Decodes the whole video and counts; shows the frames numbered `look_at` to `look`.

    Raises:
        VideoError: decoding fails somewhere, or ends before the header says.
    """
    paths = _local(source)
    if isinstance(paths, list):
        return count_images(paths, look_at=look_at, look=look)
    return count_video(paths, info, look_at=look_at, look=look)


def decode(source: Source, indices: Sequence[int], *, info: VideoInfo, size: tuple[int, int] | None = None) -> Decoded:
    """Frames at `indices` (ascending), resized to `size` = (height, width) where it is given.

    Raises:
        VideoError: decoding fails.
    """
    resize: Resize = (lambda frames: resize_frames(frames, size)) if size else (lambda frames: frames)
    paths = _local(source)
    if isinstance(paths, list):
        return decode_images(paths, indices, resize)
    return decode_video(paths, indices, info, resize)


def resize_frames(frames: Frames, size: tuple[int, int]) -> Frames:
    """Bicubic with anti-aliasing, on 8-bit pixels, to (height, width): within 1 of Pillow and seven times as fast."""
    if frames.shape[1:3] == size:
        return frames
    import torch  # here, because processes that only probe videos do without its seconds of import

    pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
    sized = torch.nn.functional.interpolate(pixels, size=size, mode="bicubic", antialias=True)
    resized: Frames = sized.permute(0, 2, 3, 1).contiguous().numpy()
    return resized


def _local(source: Source) -> Path | list[Path]:
    try:
        if isinstance(source, str | Path):
            return storage.local_path(source)
        return [storage.local_path(image) for image in source]
    except FileNotFoundError as error:
        raise VideoError("missing", str(error)) from error
