"""Reads a video file with PyAV: what it holds, and its frames at given places, decoding only what they need.

Imports no torch, so that a worker process which only looks at videos starts fast.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from ivcp.video.files import (
    DECODER_ERRORS,
    VideoError,
    VideoInfo,
    decode_packet,
    describe,
    in_words,
    open_video,
)
from ivcp.video.packets import Packets, can_seek, demux_from, read_packets
from ivcp.video.sampling import Timeline

Frames = NDArray[np.uint8]
"""(num_frames, height, width, 3), RGB."""
Resize = Callable[[Frames], Frames]
Look = Callable[[int, Frames], None]
"""Is shown single frames on the way: their number in the video, and (height, width, 3)."""

CHUNK = 16
"""Frames that are held at full size at once, at most."""
_CHUNK_BYTES = 64 * 1024**2
_MIN_COVERED = 0.75
"""Share of a stated duration that frames must cover where the number of frames is not stated. Sound may be longer."""


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
        first = self._first_frame()
        self.info = describe(path, container, stream, first, 0)
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
        """The packets of a stretch, in seconds; from the video's start where seeking is not possible."""
        if not self.can_seek:
            with open_video(self.path) as (container, stream):
                return read_packets(container, stream)
        if start is None:
            self._container.seek(min(0, self._stream.start_time or 0), stream=self._stream, backward=True)
        return read_packets(self._container, self._stream, start, end)

    def timeline(self, packets: Packets) -> Timeline:
        """When the frames of `packets` are shown; at an even rate where packets do not say."""
        order = packets.display_order()
        if len(order) != packets.num_frames or len(np.unique(order)) != len(order):
            return Timeline.even(packets.num_frames, self.info.fps)
        return Timeline((order - (self._stream.start_time or 0)) * packets.time_base, self.info.fps)

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
        `places` are after its end.

        Raises:
            VideoError: decoding fails.
        """
        wanted, pts = frozenset(places), list[int | None]()
        resizing = Resizing(resize)
        for frame in decode_frames(self.path):
            if len(pts) in wanted:
                resizing.add(to_rgb(frame, self._converter))
            pts.append(frame.pts)
        if not pts:
            raise VideoError("zero_frames", "no frame can be decoded")
        timeline = self._timeline_of_frames(pts)
        if places[-1] >= len(pts):
            return None, timeline
        rows = {place: row for row, place in enumerate(sorted(wanted))}
        return resizing.result()[[rows[place] for place in places]], timeline

    def _timeline_of_frames(self, pts: Sequence[int | None]) -> Timeline:
        times = np.array([] if None in pts else pts, dtype=np.int64)
        if len(times) != len(pts) or (np.diff(times) <= 0).any():
            return Timeline.even(len(pts), self.info.fps)
        zero = int(times[0]) if self._stream.start_time is None else self._stream.start_time
        return Timeline((times - zero) * float(self._stream.time_base), self.info.fps)

    def _first_frame(self) -> Any:
        num_packets = 0
        for packet in self._container.demux(self._stream):
            num_packets += bool(packet.size)
            for frame in decode_packet(packet, 0):
                return frame
            if num_packets == 1 and packet.size:
                for frame in self._drain():  # the decoder holds a frame back until it has seen some more
                    return frame
        stated = self._stream.frames
        raise VideoError("zero_frames", f"{num_packets} frames in the stream, {stated} stated, none can be decoded")

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
    num_frames, first = 0, None
    with open_video(path) as (container, stream):
        for packet in container.demux(stream):
            num_frames += bool(packet.size) and not packet.is_discard
            if first is None:
                first = next(decode_packet(packet, 0), None)
        if first is None:
            stated = stream.frames
            raise VideoError("zero_frames", f"{num_frames} frames in the stream, {stated} stated, none can be decoded")
        return describe(path, container, stream, first, num_frames)


def count_frames(path: Path, info: VideoInfo, *, look_at: Collection[int] = (), look: Look | None = None) -> int:
    """Decodes the whole video and counts; shows the frames numbered `look_at` to `look`.

    Raises:
        VideoError: decoding fails somewhere, or ends before the header says.
    """
    count, end_seconds, converter = 0, 0.0, VideoReformatter()
    for frame in decode_frames(path):
        if look is not None and count in look_at:
            look(count, to_rgb(frame, converter))
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


def decode_frames(path: Path) -> Iterator[Any]:
    """All frames of a video, in the order they are shown.

    Raises:
        VideoError: it cannot be read, or decoding fails.
    """
    count = 0
    with open_video(path) as (container, stream):
        for packet in container.demux(stream):
            for frame in decode_packet(packet, count):
                yield frame
                count += 1


def to_rgb(frame: Any, converter: Any) -> Frames:
    """One frame as displayed, (height, width, 3)."""
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


def stack_sizes(batches: Sequence[Frames]) -> Frames:
    """Batches of frames, one after the other.

    Raises:
        VideoError: their frames differ in size.
    """
    sizes = {batch.shape[1:] for batch in batches}
    if len(sizes) > 1:
        raise VideoError("damaged", f"the frame size changes within the video: {sorted(sizes)}")
    return np.concatenate(batches)
