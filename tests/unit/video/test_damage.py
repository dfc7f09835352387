"""Files that are damaged in every way: each gets frames or a reason, none hangs, none ends the process that asked."""

import os
from pathlib import Path

import numpy as np
import pytest

from ivcp.models.processor import Processor
from ivcp.settings import VideoConfig
from ivcp.video import Span, VideoError, frame_times, load_clip, load_clips, probe
from ivcp.video.workers import run_in_workers
from tests.ffmpeg import pattern, write
from tests.videos import write_footage

MUTATIONS = int(os.environ.get("IVCP_FUZZ", "60"))
"""Mutated files: set it to some thousands for a long search."""


@pytest.fixture(scope="module")
def processor(base_model_dir: Path) -> Processor:
    return Processor.from_pretrained(
        base_model_dir, video=VideoConfig(video_num_frames=4), special_tokens=("<ACTION>",)
    )


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("footage")
    return write_footage(folder / "a.mp4", num_frames=40, options={"g": "10", "movflags": "faststart"})


def look_at(path: Path) -> str:
    try:
        return f"{len(frame_times(path, probe(path)).seconds)} frames"
    except VideoError as error:
        return error.reason


def reasons(paths: list[Path]) -> dict[str, str]:
    outcomes = run_in_workers(look_at, paths, timeout_seconds=20.0, num_workers=2)
    return {path.name: f"VideoError {found}" if isinstance(found, VideoError) else found for path, found in outcomes}


def test_a_file_cut_off_at_every_tenth(footage: Path, tmp_path: Path) -> None:
    content = footage.read_bytes()
    paths = []
    for tenth in range(10):
        paths.append(tmp_path / f"{tenth}.mp4")
        paths[-1].write_bytes(content[: len(content) * tenth // 10])
    found = reasons(paths)
    assert found["0.mp4"] == "empty"
    assert {found[f"{tenth}.mp4"] for tenth in range(1, 10)} <= {"truncated", "damaged", "zero_frames"}


def test_bytes_that_are_no_video(footage: Path, tmp_path: Path) -> None:
    content = footage.read_bytes()
    moov_end = content.index(b"mdat") + 4
    for name, written in {
        "zeros.mp4": bytes(20_000),
        "random.mp4": np.random.default_rng(3).bytes(20_000),
        "header.mp4": content[:moov_end],
        "ftyp.mp4": content[:32],
    }.items():
        (tmp_path / name).write_bytes(written)
    found = reasons(sorted(tmp_path.glob("*.mp4")))
    assert found == {
        "ftyp.mp4": "truncated",
        "header.mp4": "truncated",
        "random.mp4": "not_a_video",
        "zeros.mp4": "not_a_video",
    }


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("one frame.mp4", {"num_frames": 1}),
        ("two pixels.mp4", {"size": (2, 2), "codec": "libx264", "num_frames": 3}),
        ("vp9.webm", {"codec": "libvpx-vp9", "num_frames": 6, "options": {"deadline": "realtime"}}),
    ],
)
def test_odd_videos_that_are_sound(tmp_path: Path, processor: Processor, name: str, options: dict) -> None:
    path = tmp_path / name
    if options.get("size") == (2, 2):
        import av

        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=5)
            stream.height = stream.width = 2
            for _ in range(3):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((2, 2, 3), 90, np.uint8))))
            container.mux(stream.encode())
    else:
        write_footage(path, **options)
    clip = load_clip(path, processor=processor)
    assert len(clip.frames) == 4
    assert clip.video_frames == len(frame_times(path, probe(path)).seconds) == options["num_frames"]


def test_one_pixel(tmp_path: Path, processor: Processor) -> None:
    from PIL import Image

    images = [Image.new("RGB", (1, 1), (shade, shade, shade)) for shade in (10, 200)]
    images[0].save(tmp_path / "one.gif", save_all=True, append_images=images[1:], duration=100)
    assert load_clip(tmp_path / "one.gif", processor=processor).frames.shape[0] == 4


def test_ten_hours_claimed_in_the_header(footage: Path, tmp_path: Path, processor: Processor) -> None:
    content = bytearray(footage.read_bytes())
    for box, offset in ((b"mvhd", 20), (b"mdhd", 20), (b"tkhd", 24)):
        at = content.index(box) + offset
        content[at : at + 4] = (36_000 * 1000).to_bytes(4, "big")
    (tmp_path / "long.mp4").write_bytes(content)
    assert probe(tmp_path / "long.mp4").num_frames == 40
    clips = load_clips(tmp_path / "long.mp4", [Span(0.2, 0.8), Span(35_000.0, 35_001.0)], processor=processor)
    assert clips[0].frame_indices[0] < clips[0].frame_indices[-1] < 15
    assert clips[1].reason == "span_outside_video"


@pytest.mark.parametrize("seconds", [1e15, 1e300, 1.7e308])
def test_moments_beyond_the_clock_of_ffmpeg(footage: Path, processor: Processor, seconds: float) -> None:
    whole, outside = load_clips(footage, [Span(None, seconds), Span(seconds, None)], processor=processor)
    assert len(whole.frames) == 4
    assert outside.reason == "span_outside_video"
    (alone,) = load_clips(footage, [Span(seconds, None)], processor=processor)
    assert alone.reason == "span_outside_video"


def test_frames_of_8k_fit_and_larger_ones_are_refused(tmp_path: Path, processor: Processor) -> None:
    path = write_footage(tmp_path / "8k.mov", codec="mjpeg", pixel_format="yuvj420p", size=(4320, 7680), num_frames=2)
    assert load_clip(path, processor=processor).video_frames == 2
    found = dict(run_in_workers(take_memory, [0.1, 30.0, 0.1], timeout_seconds=30.0, num_workers=1, memory_gigabytes=1))
    assert isinstance(found[30.0], VideoError)
    assert (found[30.0].reason, found[0.1]) == ("out_of_memory", "had it")


def take_memory(gigabytes: float) -> str:
    np.ones(int(gigabytes * 1e9), dtype=np.uint8)
    return "had it"


def test_without_a_keyframe_at_the_start(footage: Path, tmp_path: Path) -> None:
    import av

    path = tmp_path / "late.mkv"
    with av.open(str(footage)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if number >= 4 and packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    assert look_at(path) in {"30 frames", "36 frames", "damaged", "zero_frames"}


class TinyFrames:
    video = VideoConfig(video_num_frames=4)

    def frame_size(self, height: int, width: int) -> tuple[int, int]:
        return 8, 8


def look_at_every_way(path: Path) -> str:
    """As validation and as preparation do; anything but a `VideoError` is raised, and fails the test."""
    for span in (Span(), Span(0.5, 1.0)):
        try:
            load_clips(path, [span], processor=TinyFrames())
        except VideoError:
            continue
    return look_at(path)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm", "a.avi", "a.ts", "a.flv", "a.mpg", "a.ogv", "a.gif"])
def test_mutated_files_never_hang_and_never_crash_the_parent(tmp_path: Path, name: str) -> None:
    codec = {"a.webm": "libvpx", "a.avi": "mpeg4", "a.mpg": "mpeg1video", "a.ogv": "libtheora", "a.gif": "gif"}
    options = {"a.mp4": ("-movflags", "faststart")}.get(name, ())
    original = write(tmp_path / name, *pattern(2), "-c:v", codec.get(name, "libx264"), "-g", "10", *options)
    rng, content = np.random.default_rng(11), original.read_bytes()
    header = content.index(b"mdat") if name == "a.mp4" else min(len(content), 2_000)
    paths = []
    for number in range(MUTATIONS if name == "a.mp4" else MUTATIONS // 2):
        mutated = bytearray(content)
        for place in rng.integers(0, header if number % 3 else len(content), rng.integers(1, 12)):
            mutated[place] = rng.integers(0, 256)
        paths.append(tmp_path / f"{number}{original.suffix}")
        paths[-1].write_bytes(mutated)
    outcomes = run_in_workers(look_at_every_way, paths, timeout_seconds=20.0, num_workers=2)
    found = [outcome for _, outcome in outcomes]
    assert len(found) == len(paths)
    assert not [outcome for outcome in found if isinstance(outcome, VideoError) and outcome.reason == "timeout"]


def test_files_that_are_no_files(footage: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    (tmp_path / "folder.mp4").mkdir()
    named = {"pipe.mp4": "not_a_video", "loop.mp4": "missing", "folder.mp4": "not_a_video", "x" * 300: "missing"}
    for name, reason in named.items():
        with pytest.raises(VideoError, match=reason):
            probe(tmp_path / name)
