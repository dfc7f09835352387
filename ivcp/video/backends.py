"""Which decoder reads which video: right frames come first, speed comes second.

PyAV reads everything. decord and torchcodec read only those kinds of files for which their frames were found equal to
PyAV's, bit by bit, on real and generated files (`tests/unit/video/test_backends.py`). PyAV reads what they fail at.
"""

from __future__ import annotations

import functools
import importlib
import logging
from collections.abc import Callable, Sequence
from typing import Any, Literal

from ivcp.video.decoders import CHUNK, Decoded, Frames, Resize, VideoReader, stack_sizes
from ivcp.video.files import DECODER_ERRORS, VideoError, VideoInfo
from ivcp.video.packets import Packets

try:
    import decord
    from decord._ffi.base import DECORDError, DECORDLimitReachedError
except ImportError:  # no wheel for this machine (arm64): PyAV reads everything
    decord = None
    _DECORD_ERRORS: tuple[type[Exception], ...] = ()
else:
    decord.logging.set_level(decord.logging.QUIET)
    _DECORD_ERRORS = (DECORDError, DECORDLimitReachedError)

Backend = Literal["auto", "pyav", "decord", "torchcodec"]

log = logging.getLogger(__name__)

# decord 0.6 (2021) has wrong pixels for MPEG-4 (dmlc/decord#195), the first frame for any index of VP8 webm (#91), no
# AV1 (#319), and was seen to return wrong frames for H.264 in AVI and for HEVC, and other colours for 10 bits.
_DECORD_CODECS = frozenset({"h264"})
_TORCHCODEC_CODECS = frozenset({"h264", "hevc", "vp9", "av1"})
_CONTAINERS = frozenset({"mp4", "matroska"})
_EIGHT_BITS = frozenset({"yuv420p", "yuvj420p"})


def is_allowed(backend: Backend, info: VideoInfo) -> bool:
    """Whether the backend is installed and gives such a video the frames that PyAV gives."""
    if _CONTAINERS.isdisjoint(info.container.split(",")) or info.pixel_format not in _EIGHT_BITS or info.interlaced:
        return False
    if backend == "decord":
        return decord is not None and info.codec in _DECORD_CODECS and info.orientation.is_upright
    if backend == "torchcodec":
        return has_torchcodec() and info.codec in _TORCHCODEC_CODECS and not info.orientation.is_mirrored
    return False


@functools.cache
def has_torchcodec() -> bool:
    """Whether torchcodec is installed and finds FFmpeg's libraries."""
    try:
        importlib.import_module("torchcodec.decoders")
    except (ImportError, RuntimeError, OSError):
        return False
    return True


def needs_whole_video(backend: Backend, info: VideoInfo) -> bool:
    """Whether the chosen backend counts frames from the video's start."""
    return is_allowed(backend, info)


def decode_places(
    reader: VideoReader, packets: Packets, places: Sequence[int], resize: Resize, backend: Backend
) -> Decoded:
    """Frames at `places` (ascending) of the stretch that `packets` are, by the backend if it is allowed for the video.

    Raises:
        LookupError: PyAV does not find them by their times.
        VideoError: decoding fails.
    """
    if is_allowed(backend, reader.info) and not packets.has_recovery_points:  # others seek to them
        read = _read_with_decord if backend == "decord" else _read_with_torchcodec
        try:
            return Decoded(_read_in_chunks(read(reader, packets), places, resize), packets.num_frames, backend)
        except (*_DECORD_ERRORS, *DECODER_ERRORS, VideoError) as error:
            log.debug("%s: %s fails, PyAV reads it: %s", reader.path, backend, error)
    return Decoded(reader.decode_exact(packets, places, resize), packets.num_frames, "pyav")


def _read_with_decord(reader: VideoReader, packets: Packets) -> Callable[[Sequence[int]], Frames]:
    video = decord.VideoReader(str(reader.path), ctx=decord.cpu(0), num_threads=1)
    _check_count(len(video), packets, "decord")

    def read(places: Sequence[int]) -> Frames:
        frames: Frames = video.get_batch(list(places)).asnumpy()
        return frames

    return read


def _read_with_torchcodec(reader: VideoReader, packets: Packets) -> Callable[[Sequence[int]], Frames]:
    decoders: Any = importlib.import_module("torchcodec.decoders")
    video = decoders.VideoDecoder(str(reader.path), dimension_order="NHWC", num_ffmpeg_threads=1)
    _check_count(len(video), packets, "torchcodec")

    def read(places: Sequence[int]) -> Frames:
        frames: Frames = video.get_frames_at(list(places)).data.numpy()
        return frames

    return read


def _check_count(count: int, packets: Packets, backend: str) -> None:
    if count != packets.num_frames:
        raise VideoError("wrong_count", f"{backend} counts {count} frames, the container {packets.num_frames}")


def _read_in_chunks(read: Callable[[Sequence[int]], Frames], places: Sequence[int], resize: Resize) -> Frames:
    return stack_sizes([resize(read(places[start : start + CHUNK])) for start in range(0, len(places), CHUNK)])
