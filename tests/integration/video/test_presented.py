"""Files of every container, cut, codec and orientation: frames and times are those that ffmpeg itself presents."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from ivcp.settings import VideoConfig
from ivcp.video import Span, VideoError, decode, frame_times, load_clips, probe
from ivcp.video.sampling import Timeline, choose_frames
from tests.ffmpeg import pattern, presented, tone, write

SPANS = (Span(), Span(0.5, 1.0), Span(0.9, None), Span(None, 0.6))


@dataclass(frozen=True)
class Source:
    """A video of three seconds that is copied into containers."""

    encoder: tuple[str, ...]
    containers: tuple[str, ...]
    sound: str = "aac"


H264 = ("libx264", "-preset", "veryfast", "-g", "40")
HEVC = ("libx265", "-preset", "ultrafast", "-x265-params", "log-level=none:keyint=40")
SOURCES = {
    "h264": Source((*H264, "-bf", "0"), ("mp4", "mov", "mkv", "ts", "flv")),
    "h264_b": Source((*H264, "-bf", "2"), ("mp4", "mov", "mkv", "ts", "flv")),
    "hevc": Source((*HEVC, "-bf", "0"), ("mp4", "mkv")),
    "hevc_b": Source((*HEVC, "-bf", "2"), ("mp4", "mov", "mkv", "ts")),
    "mpeg4": Source(("mpeg4", "-g", "40", "-bf", "0"), ("mp4", "mkv", "avi")),
    "mpeg2_b": Source(("mpeg2video", "-g", "15", "-bf", "2"), ("mpg", "ts", "mkv")),
    "vp8": Source(("libvpx", "-cpu-used", "8", "-g", "40"), ("webm",), "libopus"),
    "vp9": Source(("libvpx-vp9", "-cpu-used", "8", "-g", "40"), ("webm", "mkv", "mp4"), "libopus"),
    "av1": Source(("libsvtav1", "-preset", "12", "-g", "40"), ("mp4", "webm"), "libopus"),
    "mjpeg": Source(("mjpeg", "-pix_fmt", "yuvj420p"), ("mov", "avi", "mkv")),
}
CUTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "whole": ((), ()),
    "cut": (("-ss", "1.3"), ("-t", "1.5")),
    "cut, no sound": (("-ss", "1.3"), ("-an",)),
    "end cut": ((), ("-t", "1.1")),
    "delayed": (("-itsoffset", "0.7"), ()),
    "no keyframe first": ((), ("-ss", "1.3", "-copyinkf")),
    "below zero": ((), ("-output_ts_offset", "-0.3", "-avoid_negative_ts", "disabled")),
}
"""Words before and after the input."""
TURNS = {
    "90": ("-display_rotation", "90"),
    "180": ("-display_rotation", "180"),
    "270": ("-display_rotation", "270"),
    "left-right": ("-display_rotation", "0", "-display_hflip"),
    "top-bottom": ("-display_rotation", "0", "-display_vflip"),
    "90, left-right": ("-display_rotation", "90", "-display_hflip"),
    "270, left-right": ("-display_rotation", "270", "-display_hflip"),
}
MP3 = {"avi", "flv", "mpg"}


class OriginalSize:
    """Takes four frames of a clip as they are."""

    video = VideoConfig(video_num_frames=4)

    def frame_size(self, height: int, width: int) -> tuple[int, int]:
        return height, width


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sources")
    return {
        name: write(
            folder / f"{name}.mkv",
            *(*pattern(3, "96x64"), *tone(3), "-pix_fmt", "yuv420p", "-c:v", *source.encoder, "-c:a", source.sound),
        )
        for name, source in SOURCES.items()
    }


@pytest.mark.parametrize("name", SOURCES)
def test_every_cut_in_every_container(name: str, sources: dict[str, Path], tmp_path: Path) -> None:
    seen = 0
    for container in SOURCES[name].containers:
        sound = "libopus" if container == "webm" else "libmp3lame" if container in MP3 else "copy"
        for cut, (before, after) in CUTS.items():
            if container == "flv" and cut == "below zero":
                continue  # its times have no sign
            path = tmp_path / f"{cut}.{container}"
            write(path, *before, "-i", sources[name], "-map", "0", "-c:v", "copy", "-c:a", sound, *after)
            check(path, untimed=guessed_times(name, cut, container))
            seen += 1
    assert seen >= len(CUTS) - 1


@pytest.mark.parametrize("name", ["h264", "h264_b", "hevc_b"])
def test_every_orientation(name: str, sources: dict[str, Path], tmp_path: Path) -> None:
    for turn, words in TURNS.items():
        for container in ("mp4", "mov"):
            path = write(tmp_path / f"{turn}.{container}", *words, "-i", sources[name], "-map", "0:v", "-c", "copy")
            check(path)


def guessed_times(name: str, cut: str, container: str) -> int:
    """How many of the first frames have no time in the file, so that ffmpeg's own times jump back and forth."""
    if cut == "below zero" and container == "mkv":
        return 9
    return 50 if cut == "no keyframe first" and name in ("mpeg4", "mpeg2_b") else 0


def check(path: Path, *, untimed: int = 0) -> None:
    """Compares all frames and times of a file, except those of the first `untimed`, and the pictures of some clips."""
    theirs = presented(path)
    info = probe(path)
    timeline = frame_times(path, info)
    frames = decode(path, range(len(timeline.seconds)), info=info).frames
    assert frames.shape == theirs.frames.shape, path.name
    assert np.abs(frames.astype(np.int16) - theirs.frames).max() <= 2, path.name
    assert np.abs(timeline.seconds - theirs.seconds)[untimed:].max(initial=0) <= 0.002, path.name
    clips = load_clips(path, SPANS, processor=OriginalSize())
    alone = [load_clips(path, [span], processor=OriginalSize())[0] for span in SPANS]
    for span, clip, other in zip(SPANS, clips, alone, strict=True):
        places = expected(timeline, span)
        assert (places is None) == isinstance(clip, VideoError) == isinstance(other, VideoError), (path.name, span)
        if places is not None:
            assert np.array_equal(clip.frames, frames[places]), (path.name, span)
            assert np.array_equal(other.frames, frames[places]), (path.name, span)


def expected(timeline: Timeline, span: Span) -> list[int] | None:
    """The frames of a clip, by the times of all frames; null where it lies outside."""
    try:
        return list(choose_frames(timeline, span, OriginalSize.video).places)
    except VideoError:
        return None
