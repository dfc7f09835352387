"""Video files: whether one can be read at all, what it says of itself, and how it is opened.

Imports no torch, so that a worker process which only looks at videos starts fast.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np

from ivcp.video.containers import OPEN_OPTIONS, best_stream, name_codec, name_kind, why_a_list, why_refused, why_still
from ivcp.video.display import Orientation, displayed_size, orientation_of
from ivcp.video.mp4_boxes import is_encrypted, lacks_index

Reason = Literal[
    "missing",
    "empty",
    "not_a_video",
    "not_an_image",
    "not_a_sound",
    "animated",
    "no_video_stream",
    "no_sound_track",
    "unknown_codec",
    "encrypted",
    "zero_frames",
    "damaged",
    "truncated",
    "wrong_count",
    "span_outside_video",
    "too_large",
    "too_long",
    "too_short",
    "out_of_memory",
    "timeout",
    "crashed",
]

av.logging.set_level(av.logging.FATAL)  # damaged videos go into reports, not line by line into logs

FALLBACK_FPS = 25.0
"""For files that state no frame rate and whose frames have no times."""
_PLAUSIBLE_FPS = (1.0, 240.0)
"""An average rate outside of this is believed only where the times of the frames say the same."""
MAX_FRAME_PIXELS = 64 * 1024 * 1024
"""Larger frames than 8192x8192 are refused: one takes 200 MB as RGB, and a decoder holds up to 17."""
_NO_KEYFRAME = "no frame can be decoded: the file starts inside a group of pictures and holds no keyframe"
_NO_INDEX = "an MP4 file without its index (moov): it was cut off or is still being written"
_BYTES_OF_FRAMES = 12
"""Per pixel, of a few frames with everything that a decoder keeps beside them."""
DECODER_ERRORS = (av.FFmpegError, OSError, ValueError, OverflowError, RuntimeError)


class VideoError(Exception):
    """A video that cannot be used: `reason` is short and countable, `detail` says what was found."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)  # both, so that it crosses processes
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


@dataclass(frozen=True)
class VideoInfo:
    """What a file says of itself, and what its first frame shows."""

    container: str
    """FFmpeg's names for the file format, comma-separated."""
    codec: str
    pixel_format: str
    width: int
    """Square pixels, as displayed: stretched and turned."""
    height: int
    orientation: Orientation
    """How stored frames are turned to be displayed."""
    interlaced: bool
    fps: float
    """Frames per second, averaged over the video."""
    num_frames: int
    """Frames that the container holds, by its packets: decoding may find another number. 0 where nobody counted."""
    stated_frames: int
    """Frames that the header counts, also those that an edit list hides; 0 where it does not say."""
    duration_seconds: float | None
    """What the header says, or else the times of the frames where these were read."""
    num_bytes: int


@contextmanager
def open_video(path: Path) -> Iterator[tuple[Any, Any]]:
    """The opened container and its video stream, which decodes in one thread: there are as many processes as cores.

    Raises:
        VideoError: the file is missing, empty, encrypted or no video, or FFmpeg fails while it is read.
    """
    with _opened(path) as container:
        yield container, _video_stream(container, path)


@contextmanager
def open_sound(path: Path, *, is_track: bool) -> Iterator[tuple[Any, Any]]:
    """The opened container and the sound in it; of a video, its sound track.

    Raises:
        VideoError: the file is missing, empty, encrypted or holds no sound, or FFmpeg fails while it is read.
    """
    try:
        with _opened(path) as container:
            yield container, _sound_stream(container, path, is_track=is_track)
    except VideoError as error:
        if is_track or error.reason != "not_a_video":
            raise
        raise VideoError("not_a_sound", error.detail) from error


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    _check_file(path)
    try:
        container = av.open(f"file:{path}", options=OPEN_OPTIONS)  # a plain "a:b.mp4" would be read as a protocol
    except MemoryError as error:
        raise VideoError("out_of_memory", "opening the file takes more memory than there is") from error
    except DECODER_ERRORS as error:
        raise _explain_unreadable(path, error) from error
    with container:
        try:
            yield container
        except av.FFmpegError as error:
            raise VideoError("damaged", f"reading stops: {in_words(error)}") from error


def describe(
    path: Path, container: Any, stream: Any, first: Any, *, num_frames: int = 0, measured_fps: float | None = None
) -> VideoInfo:
    """What an open video says of itself; `first` is its first frame, `measured_fps` comes from all frames' times."""
    duration = container.duration / av.time_base if container.duration else None
    fps = stated_fps(stream) or measured_fps or _fps_of_header(stream, num_frames, duration)
    if duration is None and num_frames:
        duration = num_frames / fps
    orientation = orientation_of(first)
    height, width = displayed_size(first.height, first.width, stream.sample_aspect_ratio, orientation)
    return VideoInfo(
        container=container.format.name,
        codec=stream.codec_context.codec.canonical_name,
        pixel_format=first.format.name,
        width=width,
        height=height,
        orientation=orientation,
        interlaced=first.interlaced_frame,
        fps=fps,
        num_frames=num_frames,
        stated_frames=stream.frames,
        duration_seconds=duration,
        num_bytes=path.stat().st_size,
    )


def stated_fps(stream: Any) -> float | None:
    """The average rate that the header states; null where it states none, or one that makes no sense."""
    slowest, fastest = _PLAUSIBLE_FPS
    rate = float(stream.average_rate or 0)
    return rate if slowest <= rate <= fastest else None


def measure_fps(times: Sequence[int | None], time_base: float) -> float | None:
    """Frames per second of frames that are shown at `times`, in any order; null where these do not tell."""
    known = [time for time in times if time is not None]
    span = (max(known) - min(known)) * time_base if known else 0.0
    return (len(known) - 1) / span if span > 0 else None


def decode_all_of(packets: Iterable[Any]) -> Iterator[Any]:
    """All frames of a video's packets, in the order they are shown.

    What stands before the first keyframe may be undecodable: the file was cut out of a longer one.

    Raises:
        VideoError: decoding fails.
    """
    count, begun, failed = 0, False, None
    for packet in packets:
        begun = begun or packet.is_keyframe
        try:
            for frame in decode_packet(packet, count):
                yield frame
                count += 1
        except VideoError as error:
            if begun or error.reason == "out_of_memory":
                raise
            failed = failed or error
    if failed is not None and not begun:
        raise VideoError("zero_frames", _NO_KEYFRAME) if not count else failed


def decode_packet(packet: Any, frames_before: int) -> Iterator[Any]:
    """The frames that a packet completes.

    Raises:
        VideoError: it cannot be decoded.
    """
    try:
        yield from packet.decode()
    except MemoryError as error:
        raise VideoError("out_of_memory", "decoding takes more memory than there is") from error
    except DECODER_ERRORS as error:
        if _lacks_memory(packet.stream.codec_context):
            raise VideoError("out_of_memory", "decoding takes more memory than there is") from error
        reason: Reason = "truncated" if packet.is_corrupt else "damaged"  # corrupt: the file's end cuts it
        raise VideoError(reason, f"decoding stops at frame {frames_before}: {in_words(error)}") from error


def _lacks_memory(context: Any) -> bool:
    """Whether this process cannot have a few more frames: FFmpeg's decoders call some failed allocations damage."""
    try:
        np.empty(_BYTES_OF_FRAMES * context.width * context.height, dtype=np.uint8)
    except MemoryError:
        return True
    return False


def in_words(error: Exception) -> str:
    """What FFmpeg says of an error."""
    if not isinstance(error, av.FFmpegError):
        return str(error)
    said = f" ({error.log[2].strip()})" if error.log else ""
    return f"{error.strerror}{said}"


def _video_stream(container: Any, path: Path) -> Any:
    stream = best_stream(container)
    if stream is None and lacks_index(path):
        raise VideoError("truncated", _NO_INDEX)
    if stream is None:
        kinds = ", ".join(sorted({name_kind(other) for other in container.streams})) or "none"
        raise VideoError("no_video_stream", f"streams in the file: {kinds}")
    if still := why_still(container):
        raise VideoError("not_a_video", still)
    context = stream.codec_context
    if context is None:
        letters = name_codec(container, stream)
        raise VideoError("unknown_codec", f"its codec {letters} cannot be decoded: convert the video to H.264")
    if context.width * context.height > MAX_FRAME_PIXELS:
        raise VideoError("too_large", f"frames of {context.width}x{context.height} pixels, most are 8192x8192")
    stream.thread_type, stream.codec_context.thread_count = "NONE", 1
    return stream


def _sound_stream(container: Any, path: Path, *, is_track: bool) -> Any:
    stream = container.streams.best("audio")
    if stream is None and lacks_index(path):
        raise VideoError("truncated", _NO_INDEX)
    if stream is None:
        kinds = ", ".join(sorted({name_kind(other) for other in container.streams})) or "none"
        if is_track:
            raise VideoError(
                "no_sound_track",
                f"streams in the file: {kinds}; use_audio_in_video hears each video: set it to false, or leave such "
                "videos out",
            )
        raise VideoError("not_a_sound", f"streams in the file: {kinds}")
    if stream.codec_context is None:
        letters = name_codec(container, stream)
        raise VideoError("unknown_codec", f"its codec {letters} cannot be decoded: convert the sound to AAC or WAV")
    stream.thread_type, stream.codec_context.thread_count = "NONE", 1
    return stream


def _check_file(path: Path) -> None:
    try:
        num_bytes = path.stat().st_size
    except OSError as error:
        raise VideoError("missing", f"there is no file {path}") from error
    if not path.is_file():
        raise VideoError("not_a_video", f"{path} is a folder or a device")
    if num_bytes == 0:
        raise VideoError("empty", "the file has 0 bytes")
    if is_encrypted(path):
        raise VideoError("encrypted", "its samples are encrypted (CENC): decrypt the file")


def _explain_unreadable(path: Path, error: Exception) -> VideoError:
    if lacks_index(path):
        return VideoError("truncated", _NO_INDEX)
    refused = why_a_list(path) or (why_refused(error) if isinstance(error, av.FFmpegError) else None)
    return VideoError("not_a_video", refused or f"FFmpeg cannot read it: {in_words(error)}")


def _fps_of_header(stream: Any, num_frames: int, duration: float | None) -> float:
    """For frames without times."""
    rate, count = float(stream.average_rate or stream.guessed_rate or 0), num_frames or stream.frames
    if 0 < rate <= _PLAUSIBLE_FPS[1]:
        return rate
    return count / duration if duration and count else FALLBACK_FPS
