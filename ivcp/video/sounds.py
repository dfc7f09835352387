"""Sounds: what is in a file, and its waveform as models hear it, in one channel at one rate. Decodes with PyAV.

The channels are resampled by FFmpeg in 32-bit floats and then averaged, as librosa does it, so that no loudness is
gained or lost on the way. Imports no torch.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import av
import numpy as np
from numpy.typing import NDArray

from ivcp import storage
from ivcp.settings import VideoConfig
from ivcp.video.clip_frames import ClipFrames
from ivcp.video.display import Orientation
from ivcp.video.files import DECODER_ERRORS, VideoError, VideoInfo, in_words, open_sound
from ivcp.video.packets import zero_of
from ivcp.video.riff import bytes_lacking

Waveform = NDArray[np.float32]
"""(num_samples,), from -1 to 1."""

SHORTEST_SECONDS = 0.1
"""Models make no single token of less than some hundredths of a second."""
_CODECS_ADD = 0.1
"""Seconds that a sound may be longer than the model hears: parts cut to its length get as much from MP3 and AAC, which
is cut off again."""
_LONGEST_GAP = 0.1
"""Seconds without samples that are silence in the sound of a video, and no inaccuracy of its clock."""
_HAVE_LENGTHS = ("mov", "flac", "aiff", "caf", "matroska")
"""Formats whose headers state how long a sound is; others are estimated by their bytes."""
_TOLERATED = 0.02
"""Share of its length, besides half a second, that a sound may lack."""


class Hearing(Protocol):
    """What reading sounds asks of a model's processor."""

    @property
    def sound_rate(self) -> int:
        """Samples per second that the model hears; an error where it hears nothing."""

    @property
    def longest_sound(self) -> float | None:
        """Seconds of sound that the model hears of one file; null is any."""


@dataclass(frozen=True)
class Sound:
    """The waveform of a file, or of the sound track of a video."""

    waveform: Waveform
    rate: int
    """Samples per second."""
    info: VideoInfo
    starts: float = 0.0
    """When its first sample is heard, in seconds of the video that it belongs to."""

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return len(self.waveform) / self.rate

    def between(self, start: float, end: float) -> Waveform:
        """What is heard from one second of the video to another; silence where there is no sound."""
        first = round((start - self.starts) * self.rate)
        last = first + round((end - start) * self.rate)
        heard = self.waveform[max(0, first) : max(0, last)]
        before = min(max(0, -first), last - first)
        return np.pad(heard, (before, last - first - before - len(heard)))


class _Resampler:
    """Brings frames of one kind to floats at another rate, channel by channel.

    The filter is long: like librosa's it keeps what is below nine tenths of half the rate, and lets nothing through
    from above, which would come back as another tone.
    """

    def __init__(self, frame: Any, rate: int) -> None:
        graph = av.filter.Graph()
        self._graph = graph
        parts = (
            graph.add_abuffer(sample_rate=frame.sample_rate, format=frame.format, layout=frame.layout),
            graph.add("aresample", f"{rate}:filter_size=128:cutoff=0.98:internal_sample_fmt=fltp"),
            graph.add("aformat", "sample_fmts=fltp"),
            graph.add("abuffersink"),
        )
        for part, following in itertools.pairwise(parts):
            part.link_to(following)
        graph.configure()

    def add(self, frame: Any) -> Iterator[NDArray[np.float32]]:
        """What a frame completes, (channels, samples); null is the end."""
        self._graph.push(frame)
        with suppress(av.BlockingIOError, EOFError):
            while True:
                yield self._graph.pull().to_ndarray()


@dataclass
class _Stretch:
    """Samples without a gap between them."""

    at: float | None
    """When the first one is heard, in seconds; null where the file does not say."""
    pieces: list[NDArray[np.float32]] = field(default_factory=list)


def load_sound(source: str | Path, *, processor: Hearing, max_seconds: float | None = None) -> ClipFrames:
    """The sound at a path or s3:// URI as the model hears it, as a clip without frames.

    Of one that is longer than `max_seconds`, or than the model hears, no more is decoded than that.

    Raises:
        VideoError: it cannot be used; `reason` says why.
    """
    rate = processor.sound_rate
    limits = [limit for limit in (processor.longest_sound, max_seconds) if limit is not None]
    sound = read_sound(source, rate=rate, most_seconds=min(limits, default=None))
    nothing = np.zeros((0, 0, 0, 3), dtype=np.uint8)
    return ClipFrames(
        frames=nothing,
        frame_indices=(),
        frame_seconds=(),
        source_fps=float(rate),
        total_frames=len(sound.waveform),
        video_frames=len(sound.waveform),
        backend="sound",
        candidates=nothing,
        kind="audio",
        span_seconds=(0.0, sound.seconds),
        waveform=sound.waveform,
    )


def with_tracks(
    paths: Path | list[Path], clips: tuple[ClipFrames | VideoError, ...], video: VideoConfig
) -> tuple[ClipFrames | VideoError, ...]:
    """Clips of one video with what is heard while each lasts, where the settings ask for it.

    Raises:
        VideoError: the video has no sound track, or it cannot be decoded.
    """
    if not video.use_audio_in_video or all(isinstance(clip, VideoError) for clip in clips):
        return clips
    if isinstance(paths, list):
        raise VideoError("no_sound_track", "frame images have no sound: set use_audio_in_video: false, or name videos")
    track = read_track(paths, rate=video.audio_sampling_rate)
    return tuple(
        clip if isinstance(clip, VideoError) else replace(clip, waveform=track.between(*clip.span_seconds))
        for clip in clips
    )


def read_sound(source: str | Path, *, rate: int, most_seconds: float | None = None) -> Sound:
    """The sound at a path or s3:// URI, `rate` samples per second.

    Raises:
        VideoError: it is missing, empty, no sound, damaged, cut off, too short, or longer than `most_seconds`.
    """
    sound = _read(source, rate, most_seconds, is_track=False)
    if sound.seconds < SHORTEST_SECONDS:
        raise VideoError("too_short", f"{sound.seconds:.3f} s of sound, expected at least {SHORTEST_SECONDS} s")
    if most_seconds is not None and sound.seconds > most_seconds:
        return replace(sound, waveform=sound.waveform[: round(most_seconds * rate)])
    return sound


def read_track(source: str | Path, *, rate: int) -> Sound:
    """The sound track of a video, with silence in its gaps.

    Raises:
        VideoError: the video has none, or it cannot be decoded.
    """
    return _read(source, rate, None, is_track=True)


def _read(source: str | Path, rate: int, most_seconds: float | None, *, is_track: bool) -> Sound:
    try:
        with storage.borrowed(source) as path, open_sound(path, is_track=is_track) as (container, stream):
            stretches = list(_stretches(container, stream, rate, most_seconds))
            info = _describe(path, container, stream, sum(len(piece) for each in stretches for piece in each.pieces))
            starts, waveform = _joined(stretches, rate, zero_of(container, stream) * float(stream.time_base), is_track)
            _check_complete(path, container, stream, len(waveform) / rate)
            return Sound(waveform, rate, info, starts)
    except FileNotFoundError as error:
        raise VideoError("missing", str(error)) from error
    except MemoryError as error:
        raise VideoError("out_of_memory", "its samples take more memory than there is") from error


def _stretches(container: Any, stream: Any, rate: int, most_seconds: float | None) -> Iterator[_Stretch]:
    """The sound of a stream, anew after each gap and where its channels or its rate change."""
    stretch, found, next_at = _Stretch(None), 0, 0.0
    resampler: _Resampler | None = None
    most = None if most_seconds is None else round((most_seconds + _CODECS_ADD) * rate)
    kind: tuple[Any, ...] | None = None
    for frame in _frames(container, stream):
        at = None if frame.pts is None else float(frame.pts * frame.time_base)
        came = (frame.format.name, frame.layout.name, frame.sample_rate)
        has_gap = resampler is not None and at is not None and abs(at - next_at) > _LONGEST_GAP
        if resampler is None or came != kind or has_gap:
            if resampler is not None:
                _add(stretch, resampler, None)
                yield stretch
            stretch, kind = _Stretch(at), came
            resampler = _Resampler(frame, rate)
        next_at = (next_at if at is None else at) + frame.samples / frame.sample_rate
        found += _add(stretch, resampler, frame)
        if most is not None and found > most:
            raise VideoError(
                "too_long",
                f"more than {most_seconds:g} s of sound, the most that is heard of one file: cut it into parts",
            )
    if resampler is not None:
        _add(stretch, resampler, None)
        yield stretch


def _frames(container: Any, stream: Any) -> Iterator[Any]:
    """All frames of a stream.

    Raises:
        VideoError: decoding fails.
    """
    count = 0
    for packet in container.demux(stream):
        try:
            for frame in packet.decode():
                count += 1
                yield frame
        except MemoryError as error:
            raise VideoError("out_of_memory", "decoding takes more memory than there is") from error
        except DECODER_ERRORS as error:
            reason = "truncated" if packet.is_corrupt else "damaged"
            raise VideoError(reason, f"decoding stops at frame {count}: {in_words(error)}") from error  # type: ignore[arg-type]


def _add(stretch: _Stretch, resampler: _Resampler, frame: Any) -> int:
    """Adds a frame to a stretch, or what is left of it; returns the number of samples."""
    pieces = [channels.mean(axis=0, dtype=np.float32) for channels in resampler.add(frame)]
    stretch.pieces += pieces
    return sum(map(len, pieces))


def _joined(stretches: Sequence[_Stretch], rate: int, zero: float, is_track: bool) -> tuple[float, Waveform]:
    """When the first sample is heard, in seconds, and all of them; gaps are silence in a track only."""
    waves = [np.concatenate(each.pieces) for each in stretches if each.pieces]
    starts = [None if each.at is None else each.at - zero for each in stretches if each.pieces]
    if not waves or not sum(map(len, waves)):
        raise VideoError("empty", "no sample can be decoded")
    first = starts[0] or 0.0
    if not is_track:
        return first, np.concatenate(waves)
    places, end = [], 0
    for wave, start in zip(waves, starts, strict=True):
        places.append(end if start is None else max(end, round((start - first) * rate)))
        end = places[-1] + len(wave)
    waveform = np.zeros(end, dtype=np.float32)
    for wave, place in zip(waves, places, strict=True):
        waveform[place : place + len(wave)] = wave
    return first, waveform


def _check_complete(path: Path, container: Any, stream: Any, seconds: float) -> None:
    """Raises:
    VideoError: the header states a longer sound than there is.
    """
    lacking = bytes_lacking(path)
    if lacking > 0:
        raise VideoError("truncated", f"the file lacks {lacking} bytes of those that its header states")
    if not container.format.name.startswith(_HAVE_LENGTHS) or not stream.duration:
        return
    stated = float(stream.duration * stream.time_base)
    if seconds < stated * (1 - _TOLERATED) - 0.5:
        raise VideoError("truncated", f"{seconds:.2f} s of sound, and {stated:.2f} s by its header")


def _describe(path: Path, container: Any, stream: Any, num_samples: int) -> VideoInfo:
    context = stream.codec_context
    return VideoInfo(
        container=container.format.name,
        codec=f"sound ({context.codec.canonical_name})",
        pixel_format="",
        width=0,
        height=0,
        orientation=Orientation(),
        interlaced=False,
        fps=float(context.sample_rate),
        num_frames=num_samples,
        stated_frames=0,
        duration_seconds=num_samples / context.sample_rate,
        num_bytes=path.stat().st_size,
    )
