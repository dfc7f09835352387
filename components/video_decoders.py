"""What a video file holds, and its frames: decord for few frames of a long H.264 video, PyAV for everything else.

Imports no torch, so that a worker process which only looks at videos starts fast.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from components.mp4_boxes import is_encrypted, lacks_index

try:
    import decord
    from decord._ffi.base import DECORDError, DECORDLimitReachedError
except ImportError:  # no wheel for this machine (arm64): PyAV reads everything
    decord = None
    _DECORD_ERRORS: tuple[type[Exception], ...] = ()
else:
    decord.logging.set_level(decord.logging.QUIET)
    _DECORD_ERRORS = (DECORDError, DECORDLimitReachedError)

Frames = NDArray[np.uint8]
"""(num_frames, height, width, 3), RGB."""
Resize = Callable[[Frames], Frames]
Look = Callable[[int, Frames], None]
"""Is shown single frames on the way: their number in the video, and (height, width, 3)."""
Reason = Literal[
    "missing",
    "empty",
    "not_a_video",
    "no_video_stream",
    "encrypted",
    "zero_frames",
    "damaged",
    "truncated",
    "wrong_count",
    "empty_span",
    "timeout",
    "crashed",
]

log = logging.getLogger(__name__)
av.logging.set_level(av.logging.FATAL)  # damaged videos go into reports, not line by line into logs

FALLBACK_FPS = 25.0
"""For files that state neither a frame rate nor a duration."""
# decord 0.6 (2021) has wrong pixels for MPEG-4 (dmlc/decord#195), the first frame for any index of VP8 webm (#91), no
# AV1 (#319), and was seen to return wrong frames for H.264 in AVI and for HEVC, and other colours for 10 bits.
_DECORD_CODECS = frozenset({"h264"})
_DECORD_CONTAINERS = frozenset({"mp4", "matroska"})
_DECORD_PIXEL_FORMATS = frozenset({"yuv420p", "yuvj420p"})
_SKIPPED_PER_SAMPLE = 32
"""decord jumps over what is not sampled: 10 times as fast for 8 of 1,394 frames. On short clips PyAV is the faster one,
and it counts all frames on the way."""
_TEXT_CODECS = frozenset({"ansi", "bintext", "xbin", "idf"})
"""What FFmpeg makes of text files: not videos, whatever it says."""
CHUNK = 16
"""Frames that are held at full size at once."""
_MIN_COVERED = 0.75
"""Share of a stated duration that frames must cover where the number of frames is not stated. Sound may be longer."""
_NO_INDEX = "an MP4 file without its index (moov): it was cut off or is still being written"
_DECODER_ERRORS = (av.FFmpegError, OSError, ValueError, OverflowError, RuntimeError)


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
    """Pixels, as displayed: after rotation."""
    height: int
    rotation: int
    """Degrees counter-clockwise that stored frames are turned to be displayed."""
    fps: float
    """Frames per second, averaged over the video."""
    num_frames: int
    """Frames that the container holds, by its packets: decoding may find another number."""
    stated_frames: int
    """Frames that the header promises; 0 where it does not say."""
    duration_seconds: float | None
    """What the header says."""
    num_bytes: int


@dataclass(frozen=True)
class Decoded:
    """Frames at the indices that were asked for, and how many the video has."""

    frames: Frames
    total_frames: int
    backend: str


def probe_video(path: Path) -> VideoInfo:
    """Reads headers and packets and decodes the first frame.

    Raises:
        VideoError: the file is missing, empty, encrypted, no video, or has no frame.
    """
    num_frames, first = 0, None
    with _open(path) as (container, stream):
        stream.thread_type = "NONE"
        for packet in container.demux(stream):
            num_frames += bool(packet.size) and not packet.is_discard
            if first is None:
                first = next(_decode_packet(packet, 0), None)
        if first is None:
            raise VideoError(
                "zero_frames", f"{num_frames} frames in the stream, {stream.frames} stated, none can be decoded"
            )
        duration = container.duration / av.time_base if container.duration else None
        height, width = (first.width, first.height) if first.rotation % 180 else (first.height, first.width)
        return VideoInfo(
            container=container.format.name,
            codec=stream.codec_context.name,
            pixel_format=first.format.name,
            width=width,
            height=height,
            rotation=first.rotation,
            fps=_frame_rate(stream.average_rate or stream.guessed_rate, num_frames, duration),
            num_frames=num_frames,
            stated_frames=stream.frames,
            duration_seconds=duration,
            num_bytes=path.stat().st_size,
        )


def count_frames(path: Path, info: VideoInfo, *, look_at: Collection[int] = (), look: Look | None = None) -> int:
    """Decodes the whole video and counts; shows the frames numbered `look_at` to `look`.

    Raises:
        VideoError: decoding fails somewhere, or ends before the header says.
    """
    count, end_seconds, converter = 0, 0.0, VideoReformatter()
    with _open(path) as (container, stream):
        for frame in _decode(container, stream):
            if look is not None and count in look_at:
                look(count, _to_rgb(frame, converter))
            count += 1
            end_seconds = max(end_seconds, (frame.time or 0.0) + 1 / info.fps)
    if count == 0:
        raise VideoError("zero_frames", "no frame can be decoded")
    # Edit lists hide a few frames at either end; a file that was cut off lacks more.
    if info.stated_frames and count < 0.95 * info.stated_frames:
        raise VideoError("truncated", f"{count} frames of the {info.stated_frames} that the header states")
    if not info.stated_frames and info.duration_seconds and end_seconds < _MIN_COVERED * info.duration_seconds:
        raise VideoError("truncated", f"frames end at {end_seconds:.1f} s of the stated {info.duration_seconds:.1f} s")
    return count


def decode_video(path: Path, indices: Sequence[int], info: VideoInfo, resize: Resize) -> Decoded:
    """Frames at `indices` (ascending, repeats allowed), resized.

    Where `total_frames` is not `info.num_frames` the container's packets and frames differ in number, and some of
    `indices` may not have been found: choose others and decode again.

    Raises:
        VideoError: decoding fails.
    """
    if decord_reads(info) and info.num_frames >= _SKIPPED_PER_SAMPLE * len(set(indices)):
        try:
            return _decode_with_decord(path, indices, info, resize)
        except (*_DECORD_ERRORS, *_DECODER_ERRORS, VideoError) as error:
            log.debug("%s: decord fails, PyAV reads it: %s", path, error)
    return _decode_with_pyav(path, indices, resize)


def decord_reads(info: VideoInfo) -> bool:
    """Whether decord's frames can be trusted for such a file."""
    return (
        decord is not None
        and info.codec in _DECORD_CODECS
        and not _DECORD_CONTAINERS.isdisjoint(info.container.split(","))
        and info.pixel_format in _DECORD_PIXEL_FORMATS
        and info.rotation == 0
    )


def _decode_with_decord(path: Path, indices: Sequence[int], info: VideoInfo, resize: Resize) -> Decoded:
    reader = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)
    if len(reader) != info.num_frames:
        raise VideoError("wrong_count", f"decord counts {len(reader)} frames, the container {info.num_frames}")
    wanted = sorted(set(indices))
    chunks = (wanted[start : start + CHUNK] for start in range(0, len(wanted), CHUNK))
    sized = np.concatenate([resize(reader.get_batch(chunk).asnumpy()) for chunk in chunks])
    position = {index: row for row, index in enumerate(wanted)}
    return Decoded(sized[[position[index] for index in indices]], info.num_frames, "decord")


def _decode_with_pyav(path: Path, indices: Sequence[int], resize: Resize) -> Decoded:
    """One pass to the end: only the wanted frames become RGB, all are counted."""
    wanted, held, sized, kept, total = frozenset(indices), [], [], [], 0
    converter = VideoReformatter()
    with _open(path) as (container, stream):
        for frame in _decode(container, stream):
            if total in wanted:
                held.append(_to_rgb(frame, converter))
                kept.append(total)
            total += 1
            if len(held) == CHUNK:
                sized.append(resize(stack_frames(held)))
                held.clear()
    if held:
        sized.append(resize(stack_frames(held)))
    if not sized:
        raise VideoError("zero_frames", f"none of the frames {min(wanted)}-{max(wanted)} was found in {total}")
    position = {index: row for row, index in enumerate(kept)}
    rows = [position[index] for index in indices if index in position]
    return Decoded(np.concatenate(sized)[rows], total, "pyav")


def _to_rgb(frame: Any, converter: Any) -> Frames:
    # One converter per clip and one thread: by itself each frame would set up and start new ones, 20 times the time.
    rgb: Frames = converter.reformat(frame, format="rgb24", threads=1).to_ndarray()
    return np.rot90(rgb, k=frame.rotation // 90 % 4)


def stack_frames(frames: Sequence[Frames]) -> Frames:
    """One array of frames of one size.

    Raises:
        VideoError: they differ in size.
    """
    sizes = {frame.shape for frame in frames}
    if len(sizes) > 1:
        raise VideoError("damaged", f"the frame size changes within the video: {sorted(sizes)}")
    return np.stack(frames)


def _decode(container: Any, stream: Any) -> Iterator[Any]:
    stream.thread_type = "NONE"  # one thread per worker process: as many processes as cores
    count = 0
    for packet in container.demux(stream):
        for frame in _decode_packet(packet, count):
            yield frame
            count += 1


def _decode_packet(packet: Any, frames_before: int) -> Iterator[Any]:
    try:
        yield from packet.decode()
    except _DECODER_ERRORS as error:
        reason: Reason = "truncated" if packet.is_corrupt else "damaged"  # corrupt: the file's end cuts it
        raise VideoError(reason, f"decoding stops at frame {frames_before}: {_in_words(error)}") from error


@contextmanager
def _open(path: Path) -> Iterator[tuple[Any, Any]]:
    _check_file(path)
    try:
        container = av.open(f"file:{path}")  # a plain "a:b.mp4" would be read as a protocol
    except _DECODER_ERRORS as error:
        raise _explain_unreadable(path, error) from error
    with container:
        stream = container.streams.best("video")
        if stream is None and lacks_index(path):
            raise VideoError("truncated", _NO_INDEX)
        if stream is None:
            kinds = ", ".join(sorted({other.type for other in container.streams})) or "none"
            raise VideoError("no_video_stream", f"streams in the file: {kinds}")
        if stream.codec_context.name in _TEXT_CODECS:
            raise VideoError("not_a_video", "it is a text file")
        yield container, stream


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
    return VideoError("not_a_video", f"FFmpeg cannot read it: {_in_words(error)}")


def _in_words(error: Exception) -> str:
    if not isinstance(error, av.FFmpegError):
        return str(error)
    said = f" ({error.log[2].strip()})" if error.log else ""
    return f"{error.strerror}{said}"


def _frame_rate(rate: Any, num_frames: int, duration: float | None) -> float:
    if rate and 0 < float(rate) <= 1000:
        return float(rate)
    return num_frames / duration if duration else FALLBACK_FPS
