"""A current ffmpeg: makes files as other people's tools do, and says what it presents of them."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

_SHOWN = re.compile(r"\] n: *\d+ pts: *\S+ +pts_time:(\S+)")
_START = re.compile(r"Duration: [^,]+, start: (-?[\d.]+)")
_SIZE = re.compile(r"rawvideo.*?, (\d+)x(\d+)")


def run_ffmpeg(*words: object) -> subprocess.CompletedProcess[bytes]:
    """Runs it; errors come back as its exit code."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-nostats", "-hide_banner", "-y", *map(str, words)]
    return subprocess.run(command, capture_output=True, check=False)


def write(path: Path, *words: object) -> Path:
    """Writes one file."""
    done = run_ffmpeg(*words, path)
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-500:]
    return path


def pattern(seconds: float = 20, size: str = "128x96", fps: int = 25) -> tuple[str, ...]:
    """Words for a moving test picture as input."""
    return ("-f", "lavfi", "-i", f"testsrc2=s={size}:r={fps}:d={seconds}")


def tone(seconds: float = 20) -> tuple[str, ...]:
    """Words for a sound as input."""
    return ("-f", "lavfi", "-i", f"sine=d={seconds}")


@dataclass(frozen=True)
class Presented:
    """What `ffmpeg -i` makes of a video."""

    seconds: NDArray[np.float64]
    """When each frame is shown, (num_frames,)."""
    frames: NDArray[np.uint8]
    """(num_frames, height, width, 3), turned and mirrored."""


def presented(path: Path) -> Presented:
    """Frames and their times."""
    options = ("-map", "0:V:0", "-fps_mode", "passthrough", "-vf", "showinfo", "-pix_fmt", "rgb24")
    done = run_ffmpeg("-copyts", "-i", path, *options, "-f", "rawvideo", "-")
    said = done.stderr.decode(errors="replace")
    width, height = map(int, _SIZE.findall(said)[-1])
    frames = np.frombuffer(done.stdout, dtype=np.uint8).reshape(-1, height, width, 3)
    seconds = np.array([float(time) for time in _SHOWN.findall(said)])
    start = _START.search(said)  # of the container: where ffmpeg counts from without -copyts
    return Presented(seconds - (float(start[1]) if start else seconds[0]), frames)
