"""A video's packets, read without decoding: when each frame is shown, and where decoding can begin."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

_SEEKABLE_CONTAINERS = frozenset({"mp4", "matroska"})
_H264_IDR = 5
_H264_VIDEO = range(1, 6)
_HEVC_IDR = frozenset({19, 20})
_HEVC_VIDEO = range(32)
_KEYFRAMES_START = frozenset({"vp9", "av1"})
"""Codecs whose keyframes forget all that was before them."""
_MOST_STEPS_BACK = 4
_LONGEST_PAUSE, _LONGEST_PAUSE_OF_STREAMS = 30 * 3600.0, 10.0
"""Seconds between two frames beyond which FFmpeg takes the clock for set anew, in files and in recorded broadcasts."""

_MOST_SECONDS = 1e9
"""Of a moment that is looked for: FFmpeg's times have 64 bits."""


@dataclass
class Packets:
    """The video packets of a stretch of a video, in decoding order."""

    time_base: float
    """Seconds of one unit of time."""
    pts: list[int | None] = field(default_factory=list)
    """When each packet's frame is shown."""
    dts: list[int | None] = field(default_factory=list)
    shown: list[bool] = field(default_factory=list)
    """False for what is decoded but not shown: an edit list hides it."""
    starts: list[int] = field(default_factory=list)
    """Places of packets that need none before them, and after which no packet needs one from before them."""
    has_recovery_points: bool = False
    """Whether packets are marked as keyframes that need packets before them."""
    cut_off: bool = False
    """Whether the file's end cuts a packet."""

    @property
    def num_frames(self) -> int:
        """Frames that are shown."""
        return sum(self.shown)

    @property
    def are_exact(self) -> bool:
        """Whether single frames can be found by their time and decoded by themselves."""
        return (
            any(self.shown)
            and self.starts[:1] == [0]
            and not self.cut_off
            and None not in self.pts
            and len(set(self.pts)) == len(self.pts)
        )

    def display_order(self) -> NDArray[np.int64]:
        """Times of the shown frames, ascending; empty where some have none."""
        shown = self.shown_times()
        return np.array([] if None in shown else sorted(shown), dtype=np.int64)  # type: ignore[type-var]

    def shown_times(self) -> list[int | None]:
        """When the shown frames are shown, in decoding order."""
        return [pts for pts, is_shown in zip(self.pts, self.shown, strict=True) if is_shown]

    def groups(self, wanted: frozenset[int]) -> Iterator[range]:
        """Places of the packets to decode for the frames at the times `wanted`: from a start to the last wanted one."""
        ends = [*self.starts[1:], len(self.pts)]
        for start, end in zip(self.starts, ends, strict=True):
            places = [place for place in range(start, end) if self.pts[place] in wanted]
            if places:
                yield range(start, places[-1] + 1)


def read_packets(container: Any, stream: Any, start: float | None = None, end: float | None = None) -> Packets:
    """The packets whose frames are shown from `start` to `end` seconds (null is the video's own), and those before that
    decoding needs. Reads on from where the container stands when `start` is null.

    Raises:
        LookupError: seeking does not lead to `start`.
    """
    zero = zero_of(container, stream)
    start, end = (None if seconds is None else min(seconds, _MOST_SECONDS) for seconds in (start, end))
    first_pts = None if start is None else zero + int(start / stream.time_base)
    last_pts = None if end is None else zero + int(end / stream.time_base) + 1
    if first_pts is not None:
        _seek_before(container, stream, first_pts)
    found = Packets(float(stream.time_base))
    is_start = _StartFinder(stream.codec_context)
    for packet in container.demux(stream):
        if not packet.size:
            continue
        starts = packet.is_keyframe and is_start(packet)
        if last_pts is not None and _is_behind(packet, last_pts, starts=starts):
            break
        if starts:
            found.starts.append(len(found.pts))
        found.pts.append(packet.pts)
        found.dts.append(packet.dts)
        found.shown.append(not packet.is_discard)
        found.has_recovery_points |= packet.is_keyframe and not starts
        found.cut_off |= packet.is_corrupt
    return found


def zero_of(container: Any, stream: Any) -> int:
    """The time that counts as second 0, in the stream's units: when the first of all streams starts, as for FFmpeg.

    0 where the container does not know when it starts.
    """
    if container.start_time is None:
        return 0
    start: float = container.start_time / float(av.time_base * stream.time_base)
    return round(start)


def longest_pause(container: Any) -> float:
    """Seconds between two frames beyond which the file's clock was set anew."""
    is_stream = container.format.flags & av.format.Flags.ts_discont.value
    return _LONGEST_PAUSE_OF_STREAMS if is_stream else _LONGEST_PAUSE


def fill_times(pts: Sequence[int | None], *, gap: float, longest: float) -> NDArray[np.float64] | None:
    """The times of frames, with those that some lack put between and around the others; null where they do not tell.

    `gap` is the time from one frame to the next at the video's rate. Where the next one is more than `longest` later,
    the clock of the file was set anew, and it follows without a pause, as for FFmpeg.
    """
    places = np.array([place for place, time in enumerate(pts) if time is not None])
    known = np.array([time for time in pts if time is not None], dtype=np.float64)
    if not len(known) or (np.diff(known) < 0).any():
        return None
    steps = np.diff(known)
    known[1:] -= np.cumsum(np.where(steps > longest, steps - gap, 0.0))
    numbers = np.arange(len(pts))
    times = np.interp(numbers, places, known)
    before, after = numbers < places[0], numbers > places[-1]
    times[before] = known[0] - gap * (places[0] - numbers[before])
    times[after] = known[-1] + gap * (numbers[after] - places[-1])
    return times


def seek(container: Any, stream: Any, target: int) -> None:
    """To the last keyframe at `target` or before.

    Raises:
        LookupError: the container does not find one.
    """
    try:
        container.seek(target, stream=stream, backward=True)
    except av.FFmpegError as error:  # EPERM for times below zero in Matroska, for example
        raise LookupError(f"seeking to {target} fails: {error.strerror}") from error


def can_seek(container: Any, stream: Any) -> bool:
    """Whether the container knows where its packets are, and the codec which of them decoding can begin with."""
    known = _StartFinder.knows(stream.codec_context.codec.canonical_name) and container.start_time is not None
    return known and not _SEEKABLE_CONTAINERS.isdisjoint(container.format.name.split(","))


def demux_from(container: Any, stream: Any, packets: Packets, place: int) -> Iterator[Any]:
    """The packets from `place` on.

    Raises:
        LookupError: seeking does not lead there.
    """
    pts, dts = packets.pts[place], packets.dts[place]
    if pts is None:
        raise LookupError("a packet without a time cannot be sought")
    # MP4 is searched by the times of decoding, Matroska by those of showing.
    target = pts if dts is None or "matroska" in container.format.name else dts
    seek(container, stream, target)
    found = False
    for packet in container.demux(stream):
        found = found or (bool(packet.size) and packet.pts == pts)
        if found and packet.size:
            yield packet
    if not found:
        raise LookupError(f"seeking does not find the packet at {pts}")


def _seek_before(container: Any, stream: Any, pts: int) -> None:
    """To the last packet decoding can begin with that is shown at `pts` or before; else to the video's start."""
    is_start = _StartFinder(stream.codec_context)
    target = pts
    for _ in range(_MOST_STEPS_BACK):
        seek(container, stream, target)
        first = next((packet for packet in container.demux(stream) if packet.size), None)
        if first is None or first.pts is None or first.dts is None:
            break
        if first.is_keyframe and first.pts <= pts and is_start(first):
            seek(container, stream, target)
            return
        target = min(first.dts, first.pts, target) - 1
    seek(container, stream, min(0, zero_of(container, stream), stream.start_time or 0))


def _is_behind(packet: Any, pts: int, *, starts: bool) -> bool:
    """Whether this packet and all that follow are shown at `pts` or later."""
    if packet.dts is not None and packet.dts >= pts:
        return True
    return starts and packet.pts is not None and packet.pts >= pts


class _StartFinder:
    """Tells whether decoding can begin with a keyframe's packet.

    For H.264 and HEVC that is more than FFmpeg's flag: recovery points have it, and need pictures before them.
    """

    def __init__(self, context: Any) -> None:
        self._codec = context.codec.canonical_name
        extradata = context.extradata or b""
        self._length_size = 0
        if self._codec == "h264" and extradata[:1] == b"\x01" and len(extradata) > 4:
            self._length_size = (extradata[4] & 3) + 1
        elif self._codec == "hevc" and extradata[:1] == b"\x01" and len(extradata) > 21:
            self._length_size = (extradata[21] & 3) + 1

    @staticmethod
    def knows(codec: str) -> bool:
        return codec in _KEYFRAMES_START or codec in ("h264", "hevc")

    def __call__(self, packet: Any) -> bool:
        if self._codec in _KEYFRAMES_START:
            return True
        if not self._length_size:
            return False
        for header in self._unit_headers(bytes(packet)):
            if self._codec == "h264" and header & 31 in _H264_VIDEO:
                return header & 31 == _H264_IDR
            if self._codec == "hevc" and header >> 1 & 63 in _HEVC_VIDEO:
                return (header >> 1 & 63) in _HEVC_IDR
        return False

    def _unit_headers(self, content: bytes) -> Iterator[int]:
        """First byte of each NAL unit; each is preceded by its length."""
        at = 0
        while at + self._length_size < len(content):
            yield content[at + self._length_size]
            at += self._length_size + int.from_bytes(content[at : at + self._length_size], "big")
