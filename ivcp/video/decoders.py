"""Reads a video file with PyAV: what it holds, and its frames at given places, decoding only what they need.

Imports no torch, so that a worker process which only looks at videos starts fast.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from ivcp.video.completeness import why_incomplete
from ivcp.video.display import orientation_of, upright
from ivcp.video.files import (
    DECODER_ERRORS,
    VideoError,
    VideoInfo,
    decode_all_of,
    decode_packet,
    describe,
    in_words,
    measure_fps,
    open_video,
    stated_fps,
)
from ivcp.video.packets import Packets, can_seek, demux_from, fill_times, longest_pause, read_packets, seek, zero_of
from ivcp.video.sampling import Timeline

Frames = NDArray[np.uint8]
"""(num_frames, height, width, 3), RGB."""
Resize = Callable[[Frames], Frames]
Look = Callable[[int, Frames], None]
"""Is shown single frames on the way: their number in the video, and (height, width, 3)."""

CHUNK = 16
"""Frames that are held at full size at once, at most."""
_CHUNK_BYTES = 64 * 1024**2


@dataclass(frozen=True)
class Decoded:
    """Frames at the places that were asked for, and how many the video has."""

    frames: Frames
    total_frames: int
    backend: str


@dataclass
class Resizing:
    """Frames on their way to their size: a few are held at full size, and resized together."""

    resize: Resize
    _held: list[Frames] = field(default_factory=list)
    _sized: list[Frames] = field(default_factory=list)

    def add(self, frame: Frames) -> None:
        """One more frame, (height, width, 3)."""
        self._held.append(frame)
        if len(self._held) >= min(CHUNK, max(1, _CHUNK_BYTES // frame.nbytes)):
            self._resize_held()

    def result(self) -> Frames:
        """All frames, in the order of `add`."""
        self._resize_held()
        return stack_sizes(self._sized)

    def _resize_held(self) -> None:
        if self._held:
            self._sized.append(self.resize(stack_frames(self._held)))
            self._held.clear()


class VideoReader:
    """An open video: what it says of itself, its packets, its frames. Decodes with PyAV."""

    def __init__(self, path: Path, container: Any, stream: Any) -> None:
        self.path = path
        self._container, self._stream = container, stream
        self._zero = zero_of(container, stream)
        first = self._first_frame()
        self.info = describe(path, container, stream, first, measured_fps=self._measured_fps())
        self.can_seek = can_seek(container, stream) and not first.interlaced_frame
        """Whether frames can be decoded without all before them."""
        self._converter = VideoReformatter()

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator[Self]:
        """An open video.

        Raises:
            VideoError: the file is missing, empty, encrypted, no video, or has no frame.
        """
        with open_video(path) as (container, stream):
            yield cls(path, container, stream)

    def packets(self, start: float | None = None, end: float | None = None) -> Packets:
        """The packets of a stretch, in seconds; from the video's start where seeking is not possible.

        Raises:
            LookupError: seeking does not lead to the stretch.
        """
        if not self.can_seek:
            return self.all_packets()
        if start is None:
            seek(self._container, self._stream, min(0, self._zero, self._stream.start_time or 0))
        return read_packets(self._container, self._stream, start, end)

    def all_packets(self) -> Packets:
        """The packets of the whole video, without seeking."""
        with open_video(self.path) as (container, stream):
            return read_packets(container, stream)

    def timeline(self, packets: Packets) -> Timeline:
        """When the frames of `packets` are shown; at an even rate where packets do not say."""
        order = packets.display_order()
        if len(order) != packets.num_frames or len(np.unique(order)) != len(order):
            return Timeline.even(packets.num_frames, self.info.fps)
        seconds = np.asarray((order - self._zero) * packets.time_base, dtype=np.float64)
        return Timeline(seconds, self.info.fps)

    def decode_exact(self, packets: Packets, places: Sequence[int], resize: Resize) -> Frames:
        """Frames at `places` (ascending) in the order of showing, decoding only what they need.

        Raises:
            LookupError: some are not found this way.
            VideoError: decoding fails.
        """
        order = packets.display_order()
        wanted = [int(order[place]) for place in places]
        found: dict[int, int] = {}
        resizing = Resizing(resize)
        needed = frozenset(wanted)
        for frame in self._decode_groups(packets, needed):
            if frame.pts in needed and frame.pts not in found:
                found[frame.pts] = len(found)
                resizing.add(to_rgb(frame, self._converter))
        if len(found) < len(needed):
            raise LookupError(f"{len(found)} of {len(needed)} frames are found by their times")
        return resizing.result()[[found[pts] for pts in wanted]]

    def decode_all(self, places: Sequence[int], resize: Resize) -> tuple[Frames | None, Timeline]:
        """Frames at `places` (ascending) of the whole video, and when all its frames are shown; null where some of
        `places` are after its end, or there are none.

        Raises:
            VideoError: decoding fails.
        """
        wanted, pts = frozenset(places), list[int | None]()
        resizing = Resizing(resize)
        with open_video(self.path) as (container, stream):
            for frame in decode_all_of(container.demux(stream)):
                if len(pts) in wanted:
                    resizing.add(to_rgb(frame, self._converter))
                pts.append(frame.pts)
            if not pts:
                raise VideoError("zero_frames", "no frame can be decoded")
            timeline = _timeline(pts, container, stream, self.info.fps)
        if not places or places[-1] >= len(pts):
            return None, timeline
        rows = {place: row for row, place in enumerate(sorted(wanted))}
        return resizing.result()[[rows[place] for place in places]], timeline

    def _first_frame(self) -> Any:
        for packet in self._container.demux(self._stream):
            if not packet.is_keyframe or packet.is_discard:
                break
            for frame in decode_packet(packet, 0):
                return frame
            for frame in self._drain():  # the decoder holds a frame back until it has seen some more
                return frame
        with open_video(self.path) as (container, stream):
            return first_frame(container.demux(stream))

    def _measured_fps(self) -> float | None:
        """From the times of all frames, where the header's rate makes no sense."""
        if stated_fps(self._stream) is not None:
            return None
        packets = self.all_packets()
        return measure_fps(packets.shown_times(), packets.time_base)

    def _decode_groups(self, packets: Packets, wanted: frozenset[int]) -> Iterator[Any]:
        context, at = self._stream.codec_context, -1
        following: Iterator[Any] = iter(())
        for group in packets.groups(wanted):
            if group.start != at:
                following = demux_from(self._container, self._stream, packets, group.start)
            for place, packet in zip(group, following, strict=False):
                if packet.pts != packets.pts[place]:
                    raise LookupError("the packets come in another order than before")
                # H.264 says itself which pictures no other needs; of HEVC that is only known with its layers.
                context.skip_frame = "NONREF" if context.name == "h264" and packet.pts not in wanted else "DEFAULT"
                yield from decode_packet(packet, place)
            at = group.stop
            yield from self._drain()

    def _drain(self) -> Iterator[Any]:
        """What the decoder still holds back."""
        context = self._stream.codec_context
        context.skip_frame = "DEFAULT"
        try:
            frames = context.decode(None)
        except DECODER_ERRORS as error:
            raise VideoError("damaged", f"decoding stops: {in_words(error)}") from error
        context.flush_buffers()
        yield from frames


def probe_video(path: Path) -> VideoInfo:
    """Reads headers and packets and decodes the first frame.

    Raises:
        VideoError: the file is missing, empty, encrypted, no video, or has no frame.
    """
    times: list[int | None] = []
    with open_video(path) as (container, stream):
        packets = _noting_times(container.demux(stream), times)
        first = first_frame(packets)
        for _ in packets:
            pass  # the first frame is decoded, of the others only the times are read
        fps = measure_fps(times, float(stream.time_base))
        return describe(path, container, stream, first, num_frames=len(times), measured_fps=fps)


def _noting_times(packets: Iterable[Any], times: list[int | None]) -> Iterator[Any]:
    """The packets; the times of those that are shown go to `times` as they pass."""
    for packet in packets:
        if packet.size and not packet.is_discard:
            times.append(packet.pts)
        yield packet


def first_frame(packets: Iterable[Any]) -> Any:
    """The first frame of a video's packets, of which no more are taken than it needs.

    Raises:
        VideoError: there is none, or decoding fails.
    """
    first = next(decode_all_of(packets), None)
    if first is None:
        raise VideoError("zero_frames", "no frame can be decoded")
    return first


def frame_times(path: Path, info: VideoInfo, *, look_at: Collection[int] = (), look: Look | None = None) -> Timeline:
    """Decodes the whole video, and says when its frames are shown; shows the frames numbered `look_at` to `look`.

    Raises:
        VideoError: decoding fails somewhere, or the file ends before the video does.
    """
    pts, converter = list[int | None](), VideoReformatter()
    with open_video(path) as (container, stream):
        for frame in decode_all_of(container.demux(stream)):
            if look is not None and len(pts) in look_at:
                look(len(pts), to_rgb(frame, converter))
            pts.append(frame.pts)
        if not pts:
            raise VideoError("zero_frames", "no frame can be decoded")
        timeline = _timeline(pts, container, stream, info.fps)
        incomplete = why_incomplete(path, container, stream, timeline)
    if incomplete:
        raise VideoError("truncated", incomplete)
    return timeline


def _timeline(pts: Sequence[int | None], container: Any, stream: Any, fps: float) -> Timeline:
    """When decoded frames are shown: at an even rate where their times do not say."""
    time_base = float(stream.time_base)
    times = fill_times(pts, gap=1 / (fps * time_base), longest=longest_pause(container) / time_base)
    if times is None:
        return Timeline.even(len(pts), fps)
    zero = float(times[0]) if container.start_time is None else zero_of(container, stream)
    return Timeline((times - zero) * time_base, fps)


def to_rgb(frame: Any, converter: Any) -> Frames:
    """One frame as displayed, (height, width, 3)."""
    # One converter per clip and one thread: by itself each frame would set up and start new ones, 20 times the time.
    rgb: Frames = converter.reformat(frame, format="rgb24", threads=1).to_ndarray()
    return upright(rgb, orientation_of(frame))


def stack_frames(frames: Sequence[Frames]) -> Frames:
    """One array of frames of one size.

    Raises:
        VideoError: they differ in size.
    """
    sizes = {frame.shape for frame in frames}
    if len(sizes) > 1:
        raise VideoError("damaged", f"the frame size changes within the video: {sorted(sizes)}")
    return np.stack(frames)


def stack_sizes(batches: Sequence[Frames]) -> Frames:
    """Batches of frames, one after the other.

    Raises:
        VideoError: their frames differ in size.
    """
    sizes = {batch.shape[1:] for batch in batches}
    if len(sizes) > 1:
        raise VideoError("damaged", f"the frame size changes within the video: {sorted(sizes)}")
    return np.concatenate(batches)
