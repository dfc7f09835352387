"""Clips of figures that move at random, with the positions of their joints: the material of the warm-up."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ivcp.demo.clip import sample_phases, sample_scene
from ivcp.demo.draw import Frames, draw_frames
from ivcp.demo.figure import POSE_FIELDS, Color, Pose, joint_positions, sample_body

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


_NUM_KEY_POSES = 33
_FIELD_JITTER = 0.08
_REPEATED = 0.4
"""The share of motions that alternate between two poses."""

Motion = NDArray[np.float64]
"""A random motion: key poses at equal distances, shape (33, 12), the fields of ``Pose`` in order."""


@dataclass(frozen=True)
class RandomClip:
    """A figure that does one of the random motions."""

    frames: Frames
    """Shape (frames, size, size, 3), RGB."""
    joints: NDArray[np.float32]
    """Positions in the frame from -1 to 1, shape (frames, 15, 2)."""
    motion: int
    """The motion's number, ``2 * index``, and one more when it runs backwards."""


def sample_motions(count: int, rng: np.random.Generator) -> list[Motion]:
    """Draw smooth motions: every field of the pose follows its own curve, limbs often move together."""
    return [_sample_motion(rng) for _ in range(count)]


def draw_random_clip(
    motions: Sequence[Motion], rng: np.random.Generator, *, num_frames: int, size: int, color: Color | None = None
) -> RandomClip:
    """Draw somebody who does one of the motions, forwards or backwards.

    Args:
        motions: What there is to do.
        rng: Chooses the motion, the body, the scene, and how the motion is carried out.
        num_frames: Frames of the clip.
        size: Width and height of a frame in pixels.
        color: Of the figure; None is one of those that performers have.
    """
    number, body = int(rng.integers(2 * len(motions))), sample_body(rng)
    if color is not None:
        body = replace(body, color=color)
    phases = sample_phases(None, num_frames, rng)
    poses = _perform(motions[number // 2], 1.0 - phases if number % 2 else phases, rng)
    joints = np.stack([joint_positions(pose, body) for pose in poses])
    scene = sample_scene(size, num_frames, rng, sway=0.1)
    frames = draw_frames(joints, body, scene, rng)
    pixels = joints * scene.figure_height + np.array(scene.ground) - scene.shake[:, None]
    return RandomClip(frames, (pixels / size * 2.0 - 1.0).astype(np.float32), number)


def _perform(motion: Motion, phases: NDArray[np.float64], rng: np.random.Generator) -> list[Pose]:
    """The poses at some phases, every field a little off from the motion as it was meant."""
    keys = np.linspace(0, 1, _NUM_KEY_POSES)
    jitter = rng.normal(0, _FIELD_JITTER, size=len(POSE_FIELDS))
    jitter[[POSE_FIELDS.index(name) for name in ("turn", "travel", "lift")]] = 0.0
    fields = np.stack([np.interp(phases, keys, curve) for curve in motion.T], axis=1) + jitter
    return [Pose(*row.tolist()) for row in fields]


def _sample_motion(rng: np.random.Generator) -> Motion:
    repeated = rng.random() < _REPEATED
    beat = _beat(rng)
    curves = {
        name: _repeat(low, high, beat, rng) if repeated else _curve(low, high, rng)
        for name, (low, high) in _RANGES.items()
    }
    if repeated:
        curves["travel"] = np.zeros(_NUM_KEY_POSES)
    curves["turn"] = np.full(_NUM_KEY_POSES, rng.uniform(0, 1))
    curves["lift"] = np.maximum(curves["lift"], 0.0)
    for part in ("upper_arm", "forearm", "thigh", "shin"):
        curves[f"right_{part}"] = _couple(curves[f"left_{part}"], curves[f"right_{part}"], rng)
    return np.stack([curves[name] for name in POSE_FIELDS], axis=1)


def _beat(rng: np.random.Generator) -> NDArray[np.float64]:
    """An oscillation between -1 and 1 that all limbs of a repeated motion share."""
    time = np.linspace(0, 1, _NUM_KEY_POSES)
    beat: NDArray[np.float64] = np.cos(2 * np.pi * (rng.uniform(1.0, 2.5) * time + rng.uniform()))
    return beat


def _repeat(low: float, high: float, beat: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    start, end = rng.uniform(low, high, size=2)
    curve: NDArray[np.float64] = (start + end) / 2 + (end - start) / 2 * beat
    return curve


def _curve(low: float, high: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Goes from one value to another in an S, with an oscillation on top in half of the cases."""
    start, end = rng.uniform(low, high, size=2)
    if rng.random() < 0.3:
        end = start
    time = np.linspace(rng.uniform(-0.2, 0.2), rng.uniform(0.8, 1.2), _NUM_KEY_POSES)
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
