"""Writes small real videos."""

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
