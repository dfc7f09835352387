"""The frames that a model was trained on, for engines that know only its config.json; without transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ivcp.models.frame_sizes import size_on_grid
from ivcp.settings import VideoConfig
from ivcp.video.clips import load_clip
from ivcp.video.decoders import Frames


class TrainedFrames:
    """How a model sees videos, as `action_classifier.video` of its config.json says it."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        """`settings` has num_frames or fps with max_frames, min_pixels, max_pixels and step."""
        self.step: int = settings["step"]
        self.video = VideoConfig(
            video_num_frames=settings["num_frames"],
            video_fps=settings["fps"],
            video_maxlen=settings["max_frames"],
            video_min_pixels=settings["min_pixels"],
            video_max_pixels=settings["max_pixels"],
        )

    def frame_size(self, height: int, width: int) -> tuple[int, int]:
        """The (height, width) in pixels that frames of this size are resized to."""
        return size_on_grid(height, width, step=self.step, video=self.video)


def read_clip(path: str | Path, settings: Mapping[str, Any]) -> tuple[Frames, Sequence[int], float, int]:
    """Frames, (num_frames, height, width, 3), where they stood in frames of the rate, that rate, frames of the clip.

    Raises:
        VideoError: the video cannot be used.
    """
    clip = load_clip(path, processor=TrainedFrames(settings))
    return clip.frames, clip.frame_indices, clip.source_fps, clip.total_frames
