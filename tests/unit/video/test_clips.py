from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ivcp.video import VideoError, decode, frame_times, probe
from ivcp.video.clips import resize_frames
from tests.data_sets import grey_of, make_clip


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("clip.mp4", "libx264"),
        ("clip.mkv", "libx264"),
        ("clip.avi", "libx264"),
        ("clip.avi", "mpeg4"),
        ("clip.webm", "libvpx-vp9"),
    ],
)
def test_decodes_the_frames_that_were_asked_for(tmp_path: Path, name: str, codec: str) -> None:
    path = make_clip(tmp_path / name, codec=codec, num_frames=100)
    info = probe(path)
    assert (info.num_frames, info.width, info.height) == (100, 64, 48)
    assert info.fps == pytest.approx(10, rel=0.06)
    decoded = decode(path, [0, 67, 67, 99], info=info)
    assert decoded.total_frames == len(frame_times(path, info).seconds)
    greys = decoded.frames[:, 20:, 20:].mean((1, 2, 3))
    assert np.abs(greys - [grey_of(0), grey_of(67), grey_of(67), grey_of(99)]).max() < 4
    with pytest.raises(VideoError, match="wrong_count: 100 frames decoded, frame 100 wanted"):
        decode(path, [100], info=info)


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
            frame_times(tmp_path / name, probe(tmp_path / name))
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

    assert len(frame_times(path, probe(path), look_at=(2, 17, 40), look=look).seconds) == 20
    assert shown == {2: pytest.approx(grey_of(2), abs=4), 17: pytest.approx(grey_of(17), abs=4)}
    shown.clear()
    assert len(frame_times(images, probe(images), look_at=(1,), look=look).seconds) == 3
    assert shown == {1: grey_of(1)}
