"""Clips of figures that move at random, with what is to be seen in them: the material of the warm-up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ivcp.demo.draw import Frames
from ivcp.demo.language.descriptions import COLORS, Answered, FrameDescription, questions_about
from ivcp.demo.random_motion import draw_random_clip, sample_motions
from ivcp.demo.tiny_architectures import IMAGE_SIZE, NUM_FRAMES

_NUM_MOTIONS = 200
_COLOR_JITTER = 15
_MOTIONS, _CLIPS = 7, 8
"""Streams of randomness, apart from those of the sample data and of the other warm-up."""


@dataclass(frozen=True)
class DescribedClip:
    """A clip of a figure, and each of its frames in words."""

    frames: Frames
    """Shape (frames, size, size, 3), RGB."""
    joints: NDArray[np.float32]
    """Positions in the frame from -1 to 1, shape (frames, 15, 2)."""
    descriptions: tuple[FrameDescription, ...]

    @property
    def questions(self) -> tuple[Answered, ...]:
        """Questions about it, the first one asks for a description."""
        return questions_about(self.descriptions)

    def every(self, step: int) -> DescribedClip:
        """The last frame, and each that is a multiple of ``step`` before it."""
        kept = slice((len(self.frames) - 1) % step, None, step)
        return DescribedClip(self.frames[kept], self.joints[kept], self.descriptions[kept])


def draw_described_clips(first: int, count: int, *, seed: int) -> list[DescribedClip]:
    """Draws clips number ``first`` and on; each depends on its number and the seed alone."""
    motions = sample_motions(_NUM_MOTIONS, np.random.default_rng([seed, _MOTIONS]))
    drawn = []
    for number in range(first, first + count):
        rng = np.random.default_rng([seed, _CLIPS, number])
        color = list(COLORS)[rng.integers(len(COLORS))]
        red, green, blue = np.clip(COLORS[color] + rng.integers(-_COLOR_JITTER, _COLOR_JITTER + 1, size=3), 0, 255)
        tint = (int(red), int(green), int(blue))
        clip = draw_random_clip(motions, rng, num_frames=NUM_FRAMES, size=IMAGE_SIZE, color=tint)
        descriptions = tuple(FrameDescription.of(joints, color) for joints in clip.joints)
        drawn.append(DescribedClip(clip.frames, clip.joints, descriptions))
    return drawn
