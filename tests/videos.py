"""Writes small real videos."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def write_video(
    path: Path, *, num_frames: int = 12, size: int = 64, fps: int = 8, seed: int = 0, keyframe_every: int = 250
) -> Path:
    """An H.264 video of a bright square that moves to the right over noise."""
    rng = np.random.default_rng(seed)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "18", "g": str(keyframe_every)})
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        for number in range(num_frames):
            frame = rng.integers(0, 60, (size, size, 3), dtype=np.uint8)
            left = number * (size - 16) // num_frames
            frame[24:40, left : left + 16] = 220
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def write_footage(
    path: Path,
    *,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    num_frames: int = 90,
    size: tuple[int, int] = (72, 96),
    fps: int = 25,
    times: Sequence[int] | None = None,
    options: Mapping[str, str] | None = None,
) -> Path:
    """A video of `size` = (height, width) with something like a scene: a texture that moves, a square, a cut.

    `times` are when frames are shown, in hundredths of a second.
    """
    rng = np.random.default_rng(7)
    scenes = [rng.integers(0, 255, (size[0] // 8 * 2, size[1] // 8 * 2, 3), dtype=np.uint8) for _ in range(2)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options=dict(options or {}))
        stream.height, stream.width = size
        stream.pix_fmt = pixel_format
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 100)
        for number in range(num_frames):
            scene = scenes[number // 50 % 2].repeat(8, 0).repeat(8, 1)
            picture = np.roll(scene, (number, 2 * number), (0, 1))[: size[0], : size[1]].copy()
            picture[20:40, number % (size[1] - 20) : number % (size[1] - 20) + 20] = 255
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pixel_format)
            frame.pts = number if times is None else times[number]
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
