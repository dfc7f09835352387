"""Clips of figures that move at random, with the positions of their joints: the material of the warm-up."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.demo.clip import sample_scene
from pipelines.demo.draw import Frames, draw_frames
from pipelines.demo.figure import POSE_FIELDS, Pose, joint_positions, sample_body

_RANGES = {
    "torso": (-0.2, 1.1),
    "left_upper_arm": (-1.5, 3.0),
    "left_forearm": (-1.5, 4.2),
    "right_upper_arm": (-1.5, 3.0),
    "right_forearm": (-1.5, 4.2),
    "left_thigh": (-0.7, 1.6),
    "left_shin": (-0.9, 0.7),
    "right_thigh": (-0.7, 1.6),
    "right_shin": (-0.9, 0.7),
    "turn": (0.0, 1.0),
    "travel": (-0.45, 0.45),
    "lift": (-0.15, 0.2),
}
"""Lowest and highest value of every field of a pose."""


@dataclass(frozen=True)
class RandomClip:
    """A figure that moves at random."""

    frames: Frames
    """Shape (frames, size, size, 3), RGB."""
    joints: NDArray[np.float32]
    """Positions in the frame from -1 to 1, shape (frames, 15, 2)."""


def draw_random_clip(rng: np.random.Generator, *, num_frames: int, size: int) -> RandomClip:
    """Draw a clip of ``num_frames`` frames of ``size`` pixels."""
    body = sample_body(rng)
    joints = np.stack([joint_positions(pose, body) for pose in sample_motion(num_frames, rng)])
    if rng.integers(2):
        joints = joints * (-1.0, 1.0)
    scene = sample_scene(size, num_frames, rng, sway=0.1)
    frames = draw_frames(joints, body, scene, rng)
    pixels = joints * scene.figure_height + np.array(scene.ground) - scene.shake[:, None]
    return RandomClip(frames, (pixels / size * 2.0 - 1.0).astype(np.float32))


def sample_motion(num_frames: int, rng: np.random.Generator) -> list[Pose]:
    """Draw a smooth motion: every field of the pose follows its own curve, limbs often move together."""
    curves = {name: _curve(low, high, num_frames, rng) for name, (low, high) in _RANGES.items()}
    curves["turn"] = np.full(num_frames, rng.uniform(0, 1))
    curves["lift"] = np.maximum(curves["lift"], 0.0)
    for part in ("upper_arm", "forearm", "thigh", "shin"):
        curves[f"right_{part}"] = _couple(curves[f"left_{part}"], curves[f"right_{part}"], rng)
    return [Pose(**{name: float(curves[name][index]) for name in POSE_FIELDS}) for index in range(num_frames)]


def _curve(low: float, high: float, num_frames: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Goes from one value to another in an S, with an oscillation on top in half of the cases."""
    start, end = rng.uniform(low, high, size=2)
    if rng.random() < 0.3:
        end = start
    time = np.linspace(rng.uniform(-0.3, 0.3), rng.uniform(0.7, 1.3), num_frames)
    trend = start + (end - start) * (3 - 2 * np.clip(time, 0, 1)) * np.clip(time, 0, 1) ** 2
    wave = np.sin(2 * np.pi * (rng.uniform(0.5, 2.5) * time + rng.uniform()))
    amplitude = rng.uniform(0, 0.4) * (high - low) * rng.integers(2)
    curve: NDArray[np.float64] = np.clip(trend + amplitude * wave, low, high)
    return curve


def _couple(left: NDArray[np.float64], right: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """The right limb alone, beside the left one, or mirroring it."""
    choice = rng.random()
    if choice < 0.3:
        return right
    return left + rng.uniform(-0.15, 0.15) if choice < 0.65 else -left
