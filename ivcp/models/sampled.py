"""What a processor is given of each medium."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ivcp.records import MediumKind


class SampledVideo(Protocol):
    """Frames at `frame_size`, and where they stood in their video: models that write time stamps need it.

    An image at `image_size` is one frame, a sound none.
    """

    @property
    def kind(self) -> MediumKind:
        """What it is."""

    @property
    def frames(self) -> NDArray[np.uint8]:
        """(num_frames, height, width, 3)"""

    @property
    def frame_indices(self) -> Sequence[int]:
        """Of each frame, in frames of `source_fps`."""

    @property
    def source_fps(self) -> float:
        """Frames per second of the source."""

    @property
    def total_frames(self) -> int:
        """Frames of the clip that they were sampled from."""

    @property
    def seconds_per_frame(self) -> float | None:
        """Seconds between two frames, on average."""

    @property
    def waveform(self) -> NDArray[np.float32] | None:
        """(num_samples,): the sound, or that of a video that is heard; null where nothing is."""


def channels_first(frames: NDArray[np.uint8]) -> torch.Tensor:
    """Frames as processors take them, (num_frames, 3, height, width)."""
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
