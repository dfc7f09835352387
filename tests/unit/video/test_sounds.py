"""Sounds of telephones, browsers and editors: one channel at one rate, as loud and as high as they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ivcp.video import VideoError
from ivcp.video.sounds import read_sound, read_track
from tests.ffmpeg import pattern, write

RATE = 16_000
SILENCE = ("-f", "lavfi", "-i", "anullsrc=r=48000:cl=mono:d=1")


def sine(hertz: float, seconds: float = 2.0, *, rate: int = 44_100, loud: float = 0.25) -> tuple[str, ...]:
    """Words for a sine in one channel as input."""
    return ("-f", "lavfi", "-i", f"aevalsrc={loud}*sin(2*PI*{hertz}*t):s={rate}:d={seconds}")


def pitch_and_height(waveform: np.ndarray) -> tuple[float, float]:
    """Of the middle: the loudest frequency, and the amplitude of a sine of this power."""
    middle = waveform[len(waveform) // 4 : -len(waveform) // 4]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle)), n=8 * len(middle)))
    return spectrum.argmax() * RATE / (8 * len(middle)), float(np.sqrt(2 * np.mean(middle**2)))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("telephone.m4a", ("-af", "pan=stereo|c0=c0|c1=c0", "-c:a", "aac", "-b:a", "128k")),
        ("voice.mp3", ("-ac", "1", "-ar", "22050", "-c:a", "libmp3lame", "-b:a", "64k")),
        ("browser.webm", ("-ar", "48000", "-c:a", "libopus")),
        ("message.ogg", ("-ar", "48000", "-ac", "1", "-c:a", "libopus", "-b:a", "32k")),
        ("vorbis.ogg", ("-af", "pan=stereo|c0=c0|c1=c0", "-c:a", "libvorbis")),
        ("narrow.wav", ("-ar", "8000")),
        ("exact.wav", ("-ar", "16000", "-c:a", "pcm_f32le")),
        ("old.wav", ("-ar", "11025", "-c:a", "pcm_u8")),
        ("cinema.wav", ("-af", "pan=5.1|c0=c0|c1=c0|c2=c0|c3=c0|c4=c0|c5=c0", "-ar", "48000")),
        ("master.flac", ("-ar", "96000")),
    ],
)
def test_a_tone_stays_as_high_and_as_loud(tmp_path: Path, name: str, options: tuple[str, ...]) -> None:
    sound = read_sound(write(tmp_path / name, *sine(440.0), *options), rate=RATE)
    assert sound.waveform.dtype == np.float32
    assert sound.seconds == pytest.approx(2.0, abs=0.06)
    hertz, height = pitch_and_height(sound.waveform)
    assert hertz == pytest.approx(440.0, abs=0.5)
    assert height == pytest.approx(0.25, rel=0.03 if name.endswith(("wav", "flac")) else 0.06)


def test_what_is_above_the_half_of_the_rate_is_gone(tmp_path: Path) -> None:
    """It would come back as another tone."""
    for hertz, heard in ((7300.0, 0.25), (8300.0, 0.0), (9500.0, 0.0)):
        sound = read_sound(write(tmp_path / f"{hertz}.wav", *sine(hertz), "-c:a", "pcm_f32le"), rate=RATE)
        assert pitch_and_height(sound.waveform)[1] == pytest.approx(heard, abs=0.003)


def test_channels_are_averaged(tmp_path: Path) -> None:
    """As librosa does it: a voice on one of two channels is half as loud, opposite ones are silent."""
    for name, pan, height in (("one", "c0=c0|c1=0*c0", 0.125), ("opposite", "c0=c0|c1=-1*c0", 0.0)):
        path = write(tmp_path / f"{name}.wav", *sine(440.0), "-af", f"pan=stereo|{pan}", "-c:a", "pcm_f32le")
        assert pitch_and_height(read_sound(path, rate=RATE).waveform)[1] == pytest.approx(height, abs=0.002)


def test_silence_is_a_sound(tmp_path: Path) -> None:
    sound = read_sound(write(tmp_path / "a.wav", *SILENCE), rate=RATE)
    assert (sound.seconds, np.abs(sound.waveform).max()) == (1.0, 0.0)


def test_the_track_of_a_video_keeps_its_place(tmp_path: Path) -> None:
    """Half a second after the pictures, as `-itsoffset` makes it; silence stands before it and behind its end."""
    path = write(
        tmp_path / "late.mkv", *pattern(3), "-itsoffset", "0.5", *sine(440.0, 1.5), "-c:v", "libx264", "-c:a", "flac"
    )
    track = read_track(path, rate=RATE)
    assert track.starts == pytest.approx(0.5, abs=0.01)
    heard = track.between(0.0, 3.0)
    assert len(heard) == 3 * RATE
    quarters = [float(np.abs(part).max()) for part in np.split(heard, 12)]
    assert max(quarters[0], *quarters[8:]) < 0.01
    assert min(quarters[2:8]) == pytest.approx(0.25, abs=0.01)
    assert np.array_equal(track.between(1.0, 2.0), heard[RATE : 2 * RATE])


def test_a_gap_in_a_track_is_silence(tmp_path: Path) -> None:
    words = (
        *pattern(3),
        *sine(440.0, 3),
        "-af",
        "aselect='not(between(t,1,2))'",
        "-c:v",
        "libx264",
        "-c:a",
        "pcm_s16le",
    )
    track = read_track(write(tmp_path / "gap.mkv", *words), rate=RATE)
    heard = track.between(0.0, 3.0)
    assert float(np.abs(heard[int(1.1 * RATE) : int(1.9 * RATE)]).max()) < 0.01
    assert float(np.abs(heard[int(2.1 * RATE) : int(2.9 * RATE)]).max()) > 0.2


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "missing"),
        (b"", "empty"),
        (b"no sound at all " * 100, "not_a_sound"),
        (b"#EXTM3U\nhttp://example.org/a.mp3\n", "not_a_sound: it is a playlist"),
    ],
)
def test_files_that_are_no_sound(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "a.mp3"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(VideoError, match=reason):
        read_sound(path, rate=RATE)


def test_sounds_that_are_too_long_too_short_or_cut_off(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", *sine(440.0, 3))
    assert read_sound(path, rate=RATE, most_seconds=3).seconds == 3.0
    with pytest.raises(VideoError, match=r"too_long: more than 2\.5 s of sound"):
        read_sound(path, rate=RATE, most_seconds=2.5)
    added = write(tmp_path / "a.mp3", *sine(440.0, 3), "-c:a", "libmp3lame", "-write_xing", "0")
    assert read_sound(added, rate=RATE).seconds > 3.01
    assert read_sound(added, rate=RATE, most_seconds=3).seconds == 3.0
    with pytest.raises(VideoError, match=r"too_short: 0\.050 s"):
        read_sound(write(tmp_path / "b.wav", *sine(440.0, 0.05)), rate=RATE)
    cut = tmp_path / "cut.wav"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(VideoError, match=r"truncated: the file lacks 132\d\d\d bytes"):
        read_sound(cut, rate=RATE)
    cut = tmp_path / "cut.m4a"
    whole = write(tmp_path / "whole.m4a", *sine(440.0, 3), "-c:a", "aac")
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(VideoError, match="truncated"):
        read_sound(cut, rate=RATE)


def test_a_video_without_a_track(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", *pattern(1), "-c:v", "libx264")
    with pytest.raises(VideoError, match="no_sound_track: streams in the file: video; use_audio_in_video hears each"):
        read_track(path, rate=RATE)
    with pytest.raises(VideoError, match="not_a_sound: streams in the file: video"):
        read_sound(path, rate=RATE)
