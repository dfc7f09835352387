from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.config import VideoConfig
from components.shards import sampled_candidate
from components.video import VideoError, candidate_indices, count_frames, decode, probe, resize_frames, sample_indices
from components.video_decoders import decord_reads
from tests.data_sets import grey_of, make_clip


def uniform(num_frames: int) -> VideoConfig:
    return VideoConfig(video_num_frames=num_frames)


@pytest.mark.parametrize("size", [1, 2, 4, 7, 8, 16])
@pytest.mark.parametrize("num_frames", [1, 3, 8, 16, 17, 61, 300])
def test_uniform_samples_are_ascending_and_mirror_under_reversal(num_frames: int, size: int) -> None:
    indices = sample_indices(num_frames, 25.0, uniform(size))
    assert len(indices) == size
    assert list(indices) == sorted(indices)
    assert 0 <= indices[0] <= indices[-1] < num_frames
    if size % 2 == 0 or num_frames % 2:
        assert [num_frames - 1 - index for index in reversed(indices)] == list(indices)


def test_uniform_samples_are_centres_of_equal_spans() -> None:
    assert sample_indices(24, 25.0, uniform(4)) == (3, 9, 14, 20)
    assert sample_indices(3, 25.0, uniform(4)) == (0, 1, 1, 2)


@pytest.mark.parametrize(
    ("num_frames", "fps", "maxlen", "expected"),
    [
        (100, 25.0, 128, 8),
        (100, 25.0, 6, 6),
        (100, 25.0, 5, 4),
        (1, 25.0, 128, 2),
        (3, 1.0, 128, 2),
        (90, 25.0, 128, 6),
    ],
)
def test_fps_samples_are_even_in_number_and_bounded(num_frames: int, fps: float, maxlen: int, expected: int) -> None:
    assert len(sample_indices(num_frames, fps, VideoConfig(video_fps=2.0, video_maxlen=maxlen))) == expected


def test_a_span_is_sampled_within_its_seconds() -> None:
    indices = sample_indices(100, 10.0, uniform(4), start_seconds=2.0, end_seconds=4.0)
    assert indices == (22, 27, 32, 37)
    with pytest.raises(VideoError, match=r"empty_span.*100 frames"):
        sample_indices(100, 10.0, uniform(4), start_seconds=10.0)


@pytest.mark.parametrize(
    ("name", "codec", "backend"),
    [
        ("clip.mp4", "libx264", "decord"),
        ("clip.mkv", "libx264", "decord"),
        ("clip.avi", "libx264", "pyav"),
        ("clip.avi", "mpeg4", "pyav"),
        ("clip.webm", "libvpx-vp9", "pyav"),
    ],
)
def test_decodes_the_frames_that_were_asked_for(tmp_path: Path, name: str, codec: str, backend: str) -> None:
    path = make_clip(tmp_path / name, codec=codec, num_frames=100)
    info = probe(path)
    assert (info.num_frames, info.width, info.height) == (100, 64, 48)
    assert info.fps == pytest.approx(10, rel=0.06)
    decoded = decode(path, [0, 67, 67, 99], info=info)
    assert (decoded.backend, decoded.total_frames) == (backend, count_frames(path, info))
    greys = decoded.frames[:, 20:, 20:].mean((1, 2, 3))
    assert np.abs(greys - [grey_of(0), grey_of(67), grey_of(67), grey_of(99)]).max() < 4
    assert decode(path, range(0, 100, 5), info=info).backend == "pyav"


def test_decord_is_not_trusted_with_what_it_reads_wrong(tmp_path: Path) -> None:
    assert decord_reads(probe(make_clip(tmp_path / "a.mp4")))
    assert not decord_reads(probe(make_clip(tmp_path / "b.mp4", codec="mpeg4")))
    assert not decord_reads(probe(make_clip(tmp_path / "a.avi")))


def test_file_names_that_look_like_something_else(tmp_path: Path) -> None:
    for name in ("a:b.mp4", "a%03d&x=1?.mp4", "[x] 视频.mp4"):
        path = make_clip(tmp_path / name)
        assert len(decode(path, [3, 4], info=probe(path)).frames) == 2


def test_frame_images_are_a_clip(tmp_path: Path) -> None:
    images = []
    for number in range(5):
        images.append(str(tmp_path / f"{number}.png"))
        Image.new("RGB", (64, 48), (grey_of(number),) * 3).save(images[-1])
    info = probe(images, images_fps=2.0)
    decoded = decode(images, [1, 4], info=info, size=(24, 32))
    assert (decoded.frames.shape, decoded.total_frames) == ((2, 24, 32, 3), 5)
    assert decoded.frames[:, 0, 0, 0].tolist() == [grey_of(1), grey_of(4)]


def test_resizing_is_within_one_of_pillow() -> None:
    frames = np.random.default_rng(0).integers(0, 255, (3, 90, 120, 3), dtype=np.uint8)
    pillow = [np.asarray(Image.fromarray(frame).resize((64, 48), Image.Resampling.BICUBIC)) for frame in frames]
    assert np.abs(resize_frames(frames, (48, 64)).astype(int) - np.stack(pillow)).max() <= 1


def test_reasons_of_unusable_files(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "sound.mp4", num_frames=200, movflags="faststart").read_bytes()
    files = {
        "empty.mp4": (b"", "empty"),
        "text.mp4": (b"This is no video.\n" * 100, "not_a_video"),
        "noise.mp4": (np.random.default_rng(0).bytes(5000), "not_a_video"),
        "head.mp4": (make_clip(tmp_path / "late.mp4").read_bytes()[:1500], "truncated"),
        "half.mp4": (clip[: len(clip) * 2 // 3], "truncated"),
    }
    for name, (content, reason) in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(VideoError) as caught:
            count_frames(tmp_path / name, probe(tmp_path / name))
        assert caught.value.reason == reason, name
    with pytest.raises(VideoError, match=r"missing: .*nowhere.mp4"):
        probe(tmp_path / "nowhere.mp4")
    with pytest.raises(VideoError, match=r"not_a_video: .* is a folder or a device"):
        probe(tmp_path)


def test_a_file_with_sound_only(tmp_path: Path) -> None:
    import av

    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
        samples.sample_rate = 16000
        for packet in [*stream.encode(samples), *stream.encode()]:
            container.mux(packet)
    with pytest.raises(VideoError, match="no_video_stream: streams in the file: audio"):
        probe(tmp_path / "sound.mp4")


def test_candidates_lie_around_their_moment_and_within_the_video() -> None:
    sampled = (5, 15, 25, 35)

    assert candidate_indices(sampled, 40, 1) == sampled
    assert candidate_indices(sampled, 40, 3) == (2, 5, 8, 12, 15, 18, 22, 25, 28, 32, 35, 38)
    assert candidate_indices((0, 1), 2, 4)[sampled_candidate(4) :: 4] == (0, 1)
    assert set(candidate_indices((0, 1), 2, 9)) == {0, 1}


def test_counting_shows_the_frames_that_are_asked_for(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", num_frames=20, size=(48, 64))
    images = []
    for number in range(3):
        images.append(str(tmp_path / f"{number}.png"))
        Image.new("RGB", (64, 48), (grey_of(number),) * 3).save(images[-1])
    shown: dict[int, float] = {}

    def look(number: int, frame: np.ndarray) -> None:
        assert frame.shape == (48, 64, 3)
        shown[number] = frame[-4:, -4:].mean()

    assert count_frames(path, probe(path), look_at=(2, 17, 40), look=look) == 20
    assert shown == {2: pytest.approx(grey_of(2), abs=4), 17: pytest.approx(grey_of(17), abs=4)}
    shown.clear()
    assert count_frames(images, probe(images), look_at=(1,), look=look) == 3
    assert shown == {1: grey_of(1)}
