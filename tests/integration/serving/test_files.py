"""Real files, odd files and damaged ones: each is answered, or refused with its code; none is a failure or hangs."""

from __future__ import annotations

import csv
import random
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import imageio_ffmpeg
import pytest

from tests.integration.serving.documented import predicted
from tests.integration.serving.predictor_process import RunningPredictor
from tests.videos import write_footage

pytestmark = pytest.mark.slow
SECONDS = 60.0
"""In which every file must be answered."""
ENCRYPTED = {"mp4parse-rust/av1-clearkey-cbcs-video.mp4"}  # FFmpeg decodes it to rubbish without a word
DAMAGED = {"decord/corrupted.mp4"}  # ffmpeg goes on behind the damage


def test_real_files(predictor: RunningPredictor, shared_data: Path) -> None:
    """Those that ffmpeg decodes are answered, but for two; the others are refused."""
    folder = shared_data / "clips"
    with (folder / "INDEX.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 88
    sound = {row["path"] for row in rows if row["decode_rc"] == "0"} - ENCRYPTED - DAMAGED
    codes = {}
    with predictor.client(timeout=SECONDS) as client:
        for row in rows:
            path = folder / row["path"]
            codes[row["path"]], _ = predicted(client, path.read_bytes(), path.name)
    refused = {path: code for path, code in codes.items() if code != "ok"}
    assert set(codes) - set(refused) == sound, refused
    assert {code for code in refused.values() if not code.startswith("video_")} == set()
    assert codes["mp4parse-rust/av1-clearkey-cbcs-video.mp4"] == "video_encrypted"


ANSWERED = {
    *("cut_bframes.mp4", "cut_bframes.mov", "cut_without_sound.mp4", "cut_short.mp4", "cut_one_hidden_frame.mp4"),
    *("delayed_by_an_edit.mp4", "cut.mkv", "cut_negative.mkv", "negative_small.mkv", "negative_large.mkv"),
    *("no_keyframe_first.mp4", "no_keyframe_first.mkv", "mirrored_left_right.mp4", "mirrored_top_bottom.mp4"),
    *("turned_and_mirrored.mp4", "wide_pixels.mp4", "recorded.webm", "live.webm", "browser.webm"),
    *("browser_irregular.webm", "trimmed.mp4", "source.mp4", "source.ts", "source_bframes.mp4"),
}
REFUSED = {
    "song_with_cover.m4a": {"video_no_video_stream"},
    "script.mp4": {"video_not_a_video"},
    "playlist.m3u8": {"video_not_a_video"},
    "playlist.mp4": {"video_not_a_video"},
    "unknown_codec.mp4": {"video_unknown_codec"},
}
EITHER = {
    "animated.webp": {"ok", "video_not_a_video", "video_unknown_codec", "video_zero_frames"},
    "starts_inside_a_group.m2ts": {"ok", "video_damaged", "video_zero_frames", "video_truncated"},
}


@pytest.fixture(scope="module")
def cases(shared_cases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cases, made by their script with a current ffmpeg."""
    folder = tmp_path_factory.mktemp("cases")
    words = ["bash", str(shared_cases / "make_videos.sh"), str(folder)]
    environment = {"FFMPEG": imageio_ffmpeg.get_ffmpeg_exe(), "PATH": "/usr/bin:/bin"}
    subprocess.run(words, check=True, capture_output=True, env=environment)
    for path in shared_cases.glob("*.*"):
        if path.suffix in (".mp4", ".webm"):
            shutil.copy(path, folder)
    return folder


def test_cases(predictor: RunningPredictor, cases: Path) -> None:
    """Cut, turned, delayed, recorded files are answered; text that opens other files is not."""
    expected = {name: {"ok"} for name in ANSWERED} | REFUSED | EITHER
    with predictor.client(timeout=SECONDS) as client:
        codes = {name: predicted(client, (cases / name).read_bytes(), name)[0] for name in sorted(expected)}
        wrong = {name: code for name, code in codes.items() if code not in expected[name]}
        assert not wrong
        for name in ("recorded.webm", "live.webm", "browser.webm", "browser_irregular.webm", "negative_large.mkv"):
            span = {"start_seconds": "1", "end_seconds": "3"}
            code, answer = predicted(client, (cases / name).read_bytes(), name, **span)
            assert answer is not None, (name, code)
            assert all(1.0 <= seconds <= 3.05 for seconds in answer.frame_seconds), (name, answer.frame_seconds)


CONTAINERS = {
    "mp4": ("clip.mp4", "libx264"),
    "mkv": ("clip.mkv", "libx264"),
    "webm": ("clip.webm", "libvpx"),
    "avi": ("clip.avi", "mpeg4"),
    "ts": ("clip.ts", "mpeg2video"),
    "mov": ("clip.mov", "mjpeg"),
}
DAMAGES_OF_EACH = 12


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Some bits turned, the end cut off, a part of it taken out, doubled or zeroed."""
    at, length = chance.randrange(len(content)), chance.randrange(1, max(2, len(content) // 4))
    match chance.randrange(6):
        case 0:
            return content[:at]
        case 1:
            return content[:at] + content[at + length :]
        case 2:
            return content[: at + length] + content[at:]
        case 3:
            return content[:at] + bytes(length) + content[at + length :]
        case 4:
            return chance.randbytes(length) + content[length:]
    turned = bytearray(content)
    for _ in range(chance.choice((1, 8, 200))):
        turned[chance.randrange(len(turned))] ^= 1 << chance.randrange(8)
    return bytes(turned)


@pytest.mark.parametrize("container", CONTAINERS)
def test_damaged_files(predictor: RunningPredictor, container: str, tmp_path: Path) -> None:
    name, codec = CONTAINERS[container]
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    whole = write_footage(tmp_path / name, codec=codec, pixel_format=pixels, num_frames=30).read_bytes()
    chance, codes = random.Random(container), Counter[str]()
    with predictor.client(timeout=SECONDS) as client:
        assert predicted(client, whole, name)[0] == "ok"
        for _ in range(DAMAGES_OF_EACH):
            codes[predicted(client, damaged(whole, chance), name)[0]] += 1
        assert predicted(client, whole, name)[0] == "ok"
    assert set(codes) - {"ok"}, "nothing was damaged"
    assert all(code == "ok" or code.startswith("video_") for code in codes), codes
