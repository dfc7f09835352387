"""Clips of a figure that does several things at once, at a speed, in a direction: for labels other than one class.

Arms, legs and trunk move by themselves, so that any of their motions go together; the figure walks so fast and so far.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import cos, pi, sin
from typing import Literal

import numpy as np

from ivcp.demo.actions import Style, clap
from ivcp.demo.clip import FRAME_SIZES, Performer, sample_scene
from ivcp.demo.draw import Frames, draw_frames
from ivcp.demo.figure import Pose, joint_positions

LabelKind = Literal["multi", "speed", "heads"]

ARMS, LEGS, TRUNK = ("wave", "clap"), ("step", "squat"), ("bow",)
MOTIONS = (*ARMS, *LEGS, *TRUNK)
"""The classes of which a clip shows one, two or three."""
HEADS = {"action": ("wave", "clap", "bow"), "direction": ("left", "right")}
SLOWEST, FASTEST = 0.05, 0.45
"""Of the speed that is to be told, in standing heights a second."""
_SECONDS, _FPS = 2.0, 12
_SIDE_SPEED = 0.3
"""Where the direction is to be told."""


@dataclass(frozen=True)
class Motion:
    """What the figure does."""

    motions: tuple[str, ...] = ()
    """Of `MOTIONS`."""
    speed: float = 0.0
    """To the right, in standing heights a second."""


def draw_labelled_clip(motion: Motion, performer: Performer, rng: np.random.Generator) -> tuple[Frames, int]:
    """Frames of shape (frames, size, size, 3), and the frame rate per second."""
    size, count = int(rng.choice(FRAME_SIZES)), round(_SECONDS * _FPS)
    scene = sample_scene(size, count, rng, sway=0.02)
    rates = {name: rng.uniform(1.4, 2.2) for name in MOTIONS}
    starts = {name: rng.uniform(0, 1) for name in MOTIONS}
    way = motion.speed * _SECONDS
    middle = rng.uniform(-1, 1) * max(0.0, 0.45 - abs(way) / 2)
    joints = []
    for time in np.linspace(0, 1, count):
        phases = {name: starts[name] + rates[name] * time for name in MOTIONS}
        pose = _pose(motion, phases, performer.style)
        joints.append(joint_positions(replace(pose, travel=middle + way * (time - 0.5)), performer.body))
    return draw_frames(np.stack(joints), performer.body, scene, rng), _FPS


def _pose(motion: Motion, phases: dict[str, float], style: Style) -> Pose:
    shown = set(motion.motions)
    pose = Pose(turn=1.0, left_upper_arm=-0.2, right_upper_arm=0.2, left_forearm=-0.25, right_forearm=0.25)
    if "wave" in shown:
        pose = replace(pose, right_upper_arm=2.2, right_forearm=2.9 + 0.6 * sin(2 * pi * phases["wave"]))
    if "clap" in shown:
        of_clap = clap(phases["clap"], style)
        arms = ("left_upper_arm", "right_upper_arm", "left_forearm", "right_forearm")
        pose = replace(pose, **{name: getattr(of_clap, name) for name in arms})
    if "squat" in shown:
        bend = 0.5 - 0.5 * cos(2 * pi * phases["squat"])
        pose = replace(
            pose, left_thigh=-0.9 * bend, right_thigh=0.9 * bend, left_shin=0.5 * bend, right_shin=-0.5 * bend
        )
    if "step" in shown or motion.speed:
        rate = phases["step"] if "step" in shown else abs(motion.speed) / FASTEST * 3 * phases["step"] / 2
        swing = style.stride * sin(2 * pi * rate)
        pose = replace(pose, left_thigh=swing, left_shin=swing, right_thigh=-swing, right_shin=-swing)
    if "bow" in shown:
        pose = replace(pose, torso=0.45 * style.amplitude * (1 - cos(2 * pi * phases["bow"])))
    return pose


def motion_of(kind: LabelKind, index: int, turn: int, rng: np.random.Generator) -> tuple[Motion, dict[str, object]]:
    """What clip number `index` shows, and the columns that say so; `turn` counts the rounds of performers."""
    place = index + turn
    if kind == "multi":
        both = COMBINATIONS[place % len(COMBINATIONS)]
        return Motion(both), {"action_label": list(both)}
    if kind == "heads":
        action = HEADS["action"][place % 3]
        direction = HEADS["direction"][place // 3 % 2]
        speed = _SIDE_SPEED if direction == "right" else -_SIDE_SPEED
        return Motion((action,), speed), {"action": action, "direction": direction}
    share = (index * 0.6180339887 + 0.5 * turn) % 1.0
    speed = round(SLOWEST + (FASTEST - SLOWEST) * share, 4)
    return Motion((), speed if rng.integers(2) else -speed), {"action_label": speed}


COMBINATIONS = tuple(
    tuple(name for name in (arms, legs, trunk) if name)
    for trunk in ("", *TRUNK)
    for legs in ("", *LEGS)
    for arms in ("", *ARMS)
)[1:]
"""Every one, two or three motions that go together."""
