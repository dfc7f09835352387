"""Files as telephones, browsers and quick cuts make them, each with what is right for it."""

from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
import pytest

from ivcp.settings import VideoConfig
from ivcp.validation.videos import VideoJob, check_video
from ivcp.video import Span, VideoError, decode, frame_times, load_clip, load_clips, probe
from tests.ffmpeg import pattern, tone, write

CUT = ("-t", "4", "-c", "copy")
BELOW_ZERO = ("-c", "copy", "-avoid_negative_ts", "disabled", "-output_ts_offset")


class OriginalSize:
    """Takes eight frames of a clip as they are."""

    video = VideoConfig(video_num_frames=8)

    def frame_size(self, height: int, width: int) -> tuple[int, int]:
        return height, width


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With `long.mp4` (long groups of pictures, B-frames, sound) and `short.mp4` (short groups), of 20 seconds."""
    folder = tmp_path_factory.mktemp("foreign")
    h264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p")
    write(folder / "long.mp4", *pattern(), *tone(), *h264, "-g", "250", "-c:a", "aac")
    write(folder / "short.mp4", *pattern(), *h264, "-g", "50", "-bf", "0")
    return folder


@pytest.mark.parametrize(
    ("name", "source", "before", "after", "num_frames"),
    [
        ("cut.mp4", "long.mp4", ("-ss", "3"), CUT, 102),
        ("cut.mov", "long.mp4", ("-ss", "3"), CUT, 102),
        ("cut, no sound.mp4", "long.mp4", ("-ss", "3"), (*CUT, "-an"), 102),
        ("cut.mkv", "long.mp4", ("-ss", "3"), CUT, 177),
        ("cut short.mp4", "short.mp4", ("-ss", "3.04"), ("-t", "1", "-c", "copy"), 25),
        ("one hidden frame.mp4", "short.mp4", ("-ss", "2.04"), CUT, 100),
        ("delayed.mp4", "short.mp4", ("-itsoffset", "1"), ("-c", "copy"), 500),
        ("below zero, a little.mkv", "long.mp4", (), (*BELOW_ZERO, "-0.05"), 500),
        ("below zero.mkv", "long.mp4", (), (*BELOW_ZERO, "-0.5"), 500),
        ("cut below zero.mkv", "long.mp4", ("-ss", "3"), (*CUT, "-avoid_negative_ts", "disabled"), 177),
        ("no keyframe first.mkv", "short.mp4", (), ("-ss", "3", *CUT, "-copyinkf"), 75),
        ("no keyframe first.mp4", "short.mp4", (), ("-ss", "3", *CUT, "-copyinkf"), 75),
    ],
)
def test_what_is_presented_counts(
    folder: Path, tmp_path: Path, name: str, source: str, before: tuple, after: tuple, num_frames: int
) -> None:
    path = write(tmp_path / name, *before, "-i", folder / source, *after)
    info = probe(path)
    assert len(frame_times(path, info).seconds) == num_frames
    assert info.fps == 25
    checked = check_video(VideoJob(0, "video", str(path), images_fps=2.0, num_looks=4))
    assert checked.times.num_frames == num_frames
    assert len(checked.looks) == 4
    whole = load_clip(path, processor=OriginalSize())
    assert whole.total_frames == num_frames
    assert (whole.frames == decode(path, whole.frame_indices, info=info).frames).all()


@pytest.mark.parametrize("offset", ["-0.05", "-0.5"])
def test_a_span_of_a_file_below_zero(folder: Path, tmp_path: Path, offset: str) -> None:
    path = write(tmp_path / "clip.mkv", "-i", folder / "long.mp4", *BELOW_ZERO, offset)
    (clip,) = load_clips(path, [Span(1.0, 3.0)], processor=OriginalSize())
    (same,) = load_clips(folder / "long.mp4", [Span(1.0, 3.0)], processor=OriginalSize())
    assert clip.frames.shape == same.frames.shape
    assert np.abs(clip.frame_indices[0] - same.frame_indices[0]) <= 1  # its sound begins 20 ms before the pictures


def test_a_span_of_a_cut_file_counts_from_the_cut(folder: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "cut.mp4", "-ss", "3", "-i", folder / "long.mp4", *CUT)
    (clip,) = load_clips(path, [Span(1.0, 2.0)], processor=OriginalSize())
    (same,) = load_clips(folder / "long.mp4", [Span(4.0, 5.0)], processor=OriginalSize())
    assert (clip.frames == same.frames).all()


def test_a_transport_stream_is_read_from_its_first_keyframe(folder: Path, tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.ts", "-i", folder / "short.mp4", "-t", "6", "-c", "copy")
    packets = whole.read_bytes()
    (tmp_path / "inside.ts").write_bytes(packets[len(packets) // 188 // 12 * 188 :])
    (tmp_path / "no keyframe.ts").write_bytes(packets[188 * 30 : 188 * 60])
    path = tmp_path / "inside.ts"
    assert len(frame_times(path, probe(path)).seconds) == 100  # from the key frame at 2 s on
    with pytest.raises(VideoError, match=r"zero_frames: .* starts inside a group of pictures and holds no keyframe"):
        probe(tmp_path / "no keyframe.ts")


@pytest.mark.parametrize("kind", ["recorded", "live", "no rate"])
def test_as_a_browser_records(tmp_path: Path, kind: str) -> None:
    times = "setpts=(N/25+0.008*mod(N*7\\,5)/5)/TB"
    path = write(
        tmp_path / "recorded.webm", *pattern(5), "-vf", times, "-fps_mode", "vfr", "-c:v", "libvpx", "-g", "50"
    )
    if kind == "live":
        path = write(tmp_path / "live.webm", "-i", path, "-c", "copy", "-f", "webm", "-live", "1")
    if kind == "no rate":
        path = without_default_duration(path)
    info = probe(path)
    assert info.fps == pytest.approx(25, rel=0.01)
    assert info.duration_seconds == pytest.approx(5, abs=0.05)
    timeline = frame_times(path, info)
    assert (len(timeline.seconds), timeline.end_seconds) == (125, pytest.approx(5, abs=0.05))
    clip = load_clip(path, processor=OriginalSize(), start_seconds=1, end_seconds=3)
    assert clip.total_frames == 50


def without_default_duration(path: Path) -> Path:
    """The Matroska element that states the rate becomes a void one of the same length; live, so without a duration."""
    live = write(path.with_name("live.webm"), "-i", path, "-c", "copy", "-f", "webm", "-live", "1")
    data = live.read_bytes()
    at = data.find(b"\x23\xe3\x83")
    assert at > 0
    length = 4 + (data[at + 3] & 0x7F)
    live.write_bytes(data[:at] + bytes([0xEC, 0x80 | (length - 2)]) + bytes(length - 2) + data[at + length :])
    return live


def test_wide_pixels_are_shown_wide(folder: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "wide.mp4", *pattern(1), "-vf", "setsar=2/1", "-c:v", "libx264", "-pix_fmt", "yuv420p")
    info = probe(path)
    assert (info.width, info.height) == (256, 96)
    assert load_clip(path, processor=OriginalSize()).frames.shape == (8, 96, 256, 3)
    assert decode(path, [0], info=info).frames.shape == (1, 96, 256, 3)
    turned = write(tmp_path / "turned.mp4", "-display_rotation", "90", "-i", path, "-c", "copy")
    assert (probe(turned).width, probe(turned).height) == (96, 256)


def test_a_cover_is_no_video(tmp_path: Path) -> None:
    cover = write(tmp_path / "cover.jpg", *pattern(1, fps=1), "-frames:v", "1")
    with_cover = ("-i", cover, "-c:a", "aac", "-disposition:v:0", "attached_pic")
    path = write(tmp_path / "song.m4a", *tone(2), *with_cover, "-map", "0:a", "-map", "1:v", "-c:v", "mjpeg")
    with pytest.raises(VideoError, match="no_video_stream"):
        probe(path)
    both = write(
        tmp_path / "film.mp4",
        *(*pattern(1), "-i", cover, "-map", "1:v", "-map", "0:v", "-c:v:0", "mjpeg", "-c:v:1", "libx264"),
        *("-pix_fmt", "yuvj420p", "-disposition:v:0", "attached_pic"),
    )
    assert (probe(both).codec, probe(both).num_frames) == ("h264", 25)


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        ("still.png", ("-frames:v", "1"), r"it is a picture \(png\)"),
        ("still.jpg", ("-frames:v", "1"), "it is a picture"),
        ("still.webp", ("-frames:v", "1"), "it is a WebP picture: convert an animation to MP4"),
        ("animated.webp", ("-c:v", "libwebp_anim", "-loop", "0"), "it is a WebP picture: convert an animation to MP4"),
        ("still.avif", ("-frames:v", "1", "-c:v", "libsvtav1"), r"it is a picture \(AVIF\)"),
    ],
)
def test_a_picture_is_no_video(tmp_path: Path, name: str, words: tuple, said: str) -> None:
    path = write(tmp_path / name, *pattern(1), *words)
    disguised = path.rename(tmp_path / "clip.mp4")
    for read in (probe, lambda path: load_clip(path, processor=OriginalSize())):
        with pytest.raises(VideoError, match=f"not_a_video: {said}"):
            read(disguised)


def test_no_file_opens_another(folder: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.5)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/a.ts"
        video = folder / "short.mp4"
        texts = {
            "script.mp4": f"ffconcat version 1.0\nfile {video}\n",
            "list.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:20\n#EXTINF:20,\n{video}\n#EXT-X-ENDLIST\n",
            "list.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:20\n#EXTINF:20,\n{url}\n#EXT-X-ENDLIST\n",
            "dash.mpd": f'<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>{url}</BaseURL></MPD>',
            "session.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n",
        }
        for name, text in texts.items():
            (tmp_path / name).write_text(text)
            for read in (probe, lambda path: load_clip(path, processor=OriginalSize())):
                with pytest.raises(VideoError, match="not_a_video"):
                    read(tmp_path / name)
        with pytest.raises(TimeoutError):
            server.accept()
    for name, kind in {"list.mp4": r"a playlist \(HLS\)", "script.mp4": r"a script \(ffconcat\)"}.items():
        with pytest.raises(VideoError, match=f"it is {kind}, which names other files: these are not opened"):
            probe(tmp_path / name)


def test_an_unknown_codec_is_named(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "unknown.mp4"
    path.write_bytes((folder / "short.mp4").read_bytes().replace(b"avc1", b"zzz1"))
    for read in (probe, lambda path: load_clip(path, processor=OriginalSize())):
        with pytest.raises(VideoError, match="unknown_codec: its codec zzz1 cannot be decoded"):
            read(path)


@pytest.mark.parametrize("name", ["cut off.mp4", "cut off.mkv", "cut off.webm", "cut off.avi", "fragments.mp4"])
def test_a_file_that_lacks_its_end_is_truncated(folder: Path, tmp_path: Path, name: str) -> None:
    options = {
        "cut off.mp4": ("-c", "copy", "-movflags", "faststart"),
        "fragments.mp4": ("-c", "copy", "-movflags", "frag_keyframe+empty_moov"),
        "cut off.mkv": ("-c", "copy"),
        "cut off.webm": ("-c:v", "libvpx"),
        "cut off.avi": ("-c:v", "mpeg4"),
    }
    path = write(tmp_path / name, "-i", folder / "short.mp4", "-t", "4", *options[name])
    assert len(frame_times(path, probe(path)).seconds) == 100
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 7 // 10])
    with pytest.raises(VideoError, match="truncated"):
        frame_times(path, probe(path))


def test_only_what_is_presented_has_to_be_there(folder: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "end.mp4", "-i", folder / "short.mp4", "-c", "copy", "-an", "-movflags", "faststart")
    content = path.read_bytes()
    at = content.index(b"mvhd") + 16
    units_per_second = int.from_bytes(content[at : at + 4], "big")
    for box, offset in ((b"elst", 12), (b"mvhd", 20), (b"tkhd", 24)):  # presents 4 s of the 20
        at = content.index(box) + offset
        content = content[:at] + (4 * units_per_second).to_bytes(4, "big") + content[at + 4 :]
    path.write_bytes(content[: len(content) // 2])
    assert len(frame_times(path, probe(path)).seconds) == 100
