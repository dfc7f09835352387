"""Every way to a frame gives the same frame, bit by bit."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from ivcp.models.processor import Processor
from ivcp.settings import VideoConfig
from ivcp.video import ClipFrames, Span, load_clip, load_clips
from ivcp.video.backends import Backend, decode_places, has_torchcodec, is_allowed
from ivcp.video.decoders import Frames, VideoReader
from tests.videos import write_footage

X264: dict[str, dict[str, str]] = {
    "default": {},
    "short groups": {"g": "12"},
    "many references": {"g": "60", "bf": "8", "refs": "8", "x264-params": "b-pyramid=normal:b-adapt=2"},
    "strict pyramid": {"bf": "5", "x264-params": "b-pyramid=strict"},
    "open groups": {"g": "20", "x264-params": "open-gop=1"},
    "intra refresh": {"g": "20", "x264-params": "intra-refresh=1"},
    "no references in B": {"x264-params": "b-pyramid=none"},
    "interlaced": {"flags": "+ildct+ilme", "x264-params": "tff=1"},
    "weighted, several slices": {"x264-params": "weightp=2:slices=4"},
    "temporal direct": {"x264-params": "direct=temporal:bframes=3"},
}
FILES = [
    *(("a.mp4", "libx264", "yuv420p", options) for options in X264.values()),
    ("a.mkv", "libx264", "yuv420p", X264["many references"]),
    ("a.mov", "libx264", "yuvj420p", {}),
    ("a.mp4", "libx264", "yuv444p", {}),
    ("a.mp4", "libx264", "yuv420p10le", {}),
    ("a.avi", "libx264", "yuv420p", {"bf": "0"}),
    ("a.ts", "libx264", "yuv420p", {"g": "12"}),
    ("a.mp4", "libx265", "yuv420p", {"x265-params": "log-level=none:keyint=20:open-gop=1"}),
    ("a.mp4", "libx265", "yuv420p", {"x265-params": "log-level=none:keyint=20:open-gop=0"}),
    (
        "a.webm",
        "libvpx-vp9",
        "yuv420p",
        {"g": "20", "auto-alt-ref": "1", "lag-in-frames": "16", "deadline": "realtime"},
    ),
    ("a.webm", "libvpx", "yuv420p", {"g": "20", "auto-alt-ref": "1", "lag-in-frames": "16", "deadline": "realtime"}),
    ("a.mp4", "libsvtav1", "yuv420p", {"g": "20", "preset": "12", "svtav1-params": "lp=1"}),
    ("a.mp4", "mpeg4", "yuv420p", {"g": "12", "bf": "2"}),
    ("a.avi", "mpeg4", "yuv420p", {"g": "12"}),
    ("a.mpg", "mpeg2video", "yuv420p", {"g": "12", "bf": "2"}),
    ("a.mov", "mjpeg", "yuvj420p", {}),
]
PLACES = (0, 1, 17, 18, 19, 20, 33, 34, 49, 50, 51, 72, 88, 89)


def as_it_is(frames: Frames) -> Frames:
    return frames


def decode_with(backend: Backend, reader: VideoReader, places: Sequence[int]) -> tuple[Frames, str]:
    decoded = decode_places(reader, reader.packets(), places, as_it_is, backend)
    return decoded.frames, decoded.backend


@pytest.mark.parametrize(("name", "codec", "pixel_format", "options"), FILES)
def test_all_backends_give_the_frames_of_a_full_pass(
    tmp_path: Path, name: str, codec: str, pixel_format: str, options: dict[str, str]
) -> None:
    path = write_footage(tmp_path / name, codec=codec, pixel_format=pixel_format, options=options)
    with VideoReader.open(path) as reader:
        whole, timeline = reader.decode_all(PLACES, as_it_is)
        assert whole is not None
        assert len(timeline.seconds) == reader.packets().num_frames == 90
        packets = reader.packets()
        is_exact = reader.can_seek and packets.are_exact
        single = codec in ("libx264", "libx265", "libvpx-vp9", "libsvtav1") and path.suffix not in (".avi", ".ts")
        assert is_exact == (single and options != X264["interlaced"])
        if is_exact:
            assert np.array_equal(reader.decode_exact(packets, PLACES, as_it_is), whole)
            for place in PLACES:  # one alone: nothing before its group is decoded
                assert np.array_equal(reader.decode_exact(packets, [place], as_it_is)[0], whole[PLACES.index(place)])
        for backend in ("decord", "torchcodec"):
            if is_allowed(backend, reader.info):
                frames, used = decode_with(backend, reader, PLACES)
                assert used == ("pyav" if packets.has_recovery_points else backend)
                assert np.array_equal(frames, whole), backend


@pytest.mark.parametrize("backend", ["decord", "torchcodec"])
def test_a_backend_reads_only_what_it_reads_right(tmp_path: Path, backend: Backend) -> None:
    if backend == "torchcodec" and not has_torchcodec():
        pytest.skip("torchcodec is not installed, or finds no FFmpeg libraries")
    allowed = {}
    for name, codec, pixel_format in [
        ("h264.mp4", "libx264", "yuv420p"),
        ("h264.mkv", "libx264", "yuv420p"),
        ("h264.avi", "libx264", "yuv420p"),
        ("ten bits.mp4", "libx264", "yuv420p10le"),
        ("hevc.mp4", "libx265", "yuv420p"),
        ("mpeg4.avi", "mpeg4", "yuv420p"),
    ]:
        options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
        path = write_footage(tmp_path / name, codec=codec, pixel_format=pixel_format, num_frames=5, options=options)
        with VideoReader.open(path) as reader:
            allowed[name] = is_allowed(backend, reader.info)
    right = {"h264.mp4", "h264.mkv"} | ({"hevc.mp4"} if backend == "torchcodec" else set())
    assert {name for name, is_right in allowed.items() if is_right} == right


@pytest.mark.parametrize("backend", ["auto", "pyav", "decord", "torchcodec"])
def test_the_setting_decides_and_what_was_used_is_recorded(
    tmp_path: Path, base_model_dir: Path, backend: Backend
) -> None:
    path = write_footage(tmp_path / "a.mp4")
    avi = write_footage(tmp_path / "a.avi", codec="mpeg4")

    def load(video: Path, chosen: str, **span: float):
        config = VideoConfig(video_num_frames=6, video_backend=chosen)
        processor = Processor.from_pretrained(base_model_dir, video=config, special_tokens=("<ACTION>",))
        return load_clip(video, processor=processor, **span)

    used = backend if backend == "decord" or (backend == "torchcodec" and has_torchcodec()) else "pyav"
    for span in ({}, {"start_seconds": 1.5, "end_seconds": 2.5}):
        clip, plain = load(path, backend, **span), load(path, "pyav", **span)
        assert clip.backend == used
        assert np.array_equal(clip.frames, plain.frames)
        assert (clip.frame_indices, clip.total_frames) == (plain.frame_indices, plain.total_frames)
    assert load(avi, backend).backend == "pyav"


@pytest.mark.parametrize("backend", ["auto", "pyav", "decord", "torchcodec"])
def test_frames_of_a_variable_rate_are_those_that_are_shown_at_even_times(
    tmp_path: Path, base_model_dir: Path, backend: Backend
) -> None:
    hundredths = [*range(0, 120, 4), *range(120, 720, 20)]  # 30 frames in 1.2 s, then 30 in 6 s
    path = write_footage(tmp_path / "vfr.mp4", num_frames=60, times=hundredths)
    config = VideoConfig(video_num_frames=8, video_backend=backend, video_min_pixels=72 * 96 * 4)
    processor = Processor.from_pretrained(base_model_dir, video=config, special_tokens=("<ACTION>",))
    clip = load_clip(path, processor=processor)

    shown = [time / 100 for time in hundredths]
    moments = (np.arange(8) + 0.5) * (shown[-1] + 1 / 8.3) / 8
    expected = [sum(second <= moment for second in shown) - 1 for moment in moments]
    assert [_number_of(frame) for frame in clip.frames] == pytest.approx(expected, abs=1)


@pytest.mark.parametrize("backend", ["auto", "pyav", "decord", "torchcodec"])
def test_frames_know_when_they_are_shown(tmp_path: Path, base_model_dir: Path, backend: Backend) -> None:
    """Also in a part of the video whose rate is not the average one."""
    hundredths = [*range(0, 120, 4), *range(120, 720, 20)]
    path = write_footage(tmp_path / "vfr.mp4", num_frames=60, times=hundredths)
    config = VideoConfig(video_num_frames=8, video_backend=backend, video_min_pixels=72 * 96 * 4)
    processor = Processor.from_pretrained(base_model_dir, video=config, special_tokens=("<ACTION>",))
    spans = [Span(), Span(None, 1.2), Span(0.3, 1.1), Span(2.0, 6.0)]

    for span, clip in zip(spans, load_clips(path, spans, processor=processor), strict=True):
        assert isinstance(clip, ClipFrames)
        for frame, seconds in zip(clip.frames, clip.frame_seconds, strict=True):
            around = [hundredths[min(max(_number_of(frame) + off, 0), 59)] / 100 for off in (-1, 1)]
            assert around[0] - 1e-6 <= seconds <= around[1] + 1e-6
        assert (span.start_seconds or 0) <= clip.frame_seconds[0] < clip.frame_seconds[-1] < (span.end_seconds or 7.2)


def _number_of(frame: np.ndarray) -> int:
    """Which frame of `write_footage` this is: its white square moves by one of 96 columns a frame."""
    rows, columns, _ = frame.shape
    whiteness = frame[rows * 22 // 72 : rows * 38 // 72].mean(axis=(0, 2))
    square = np.ones(columns * 20 // 96)
    return round(float(np.convolve(whiteness, square, mode="valid").argmax()) * 96 / columns)
