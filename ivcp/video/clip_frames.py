"""What was read of one clip: frames of a video, an image, or a sound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ivcp.video.decoders import Frames


@dataclass(frozen=True)
class ClipFrames:
    """The sampled frames of one clip."""

    frames: Frames
    """(num_frames, height, width, 3)"""
    frame_indices: tuple[int, ...]
    """Where they stood in the clip, in frames of `source_fps`."""
    frame_seconds: tuple[float, ...]
    """When in the video they are shown."""
    source_fps: float
    total_frames: int
    """Frames of the clip."""
    video_frames: int | None
    """Frames of the whole video; null where only the clip's stretch of it was read."""
    backend: str
    """What decoded them: pyav, decord, torchcodec or images."""
    candidates: Frames
    """(num_frames * k, height, width, 3): k frames around each sampled moment, the sampled one among them."""
    kind: Literal["video", "image", "audio"] = "video"
    """An image is a clip of one frame (`ivcp.video.images`), a sound one of none (`ivcp.video.sounds`)."""
    span_seconds: tuple[float, float] = (0.0, 0.0)
    """When the clip begins and ends, in seconds of its video."""
    waveform: NDArray[np.float32] | None = None
    """(num_samples,): the sound, or what is heard of the video's sound track while the clip lasts; null where nothing
    is."""

    @property
    def seconds_per_frame(self) -> float:
        """Seconds between two sampled frames, on average; 0 for a single frame, and for none."""
        if not self.frame_indices:
            return 0.0
        span = self.frame_indices[-1] - self.frame_indices[0]
        return span / max(1, len(self.frame_indices) - 1) / self.source_fps
