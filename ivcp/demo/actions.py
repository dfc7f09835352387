"""The actions of the sample data set: functions from a phase to a pose.

Four pairs differ only in the order of time: the partner is the same motion run backwards, so that no single
frame tells the two apart.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import cos, pi, sin

import numpy as np

from ivcp.demo.figure import Pose, blend

REVERSED_PAIRS = (
    ("sit_down", "stand_up"),
    ("walk_left", "walk_right"),
    ("pick_up", "put_down"),
    ("raise_arms", "lower_arms"),
)
GRASP_PHASE = 0.45
"""The phase of ``pick_up`` at which the hands close around the box."""


@dataclass(frozen=True)
class Style:
    """How one performer moves. Factors around 1, angles in radians."""

    amplitude: float = 1.0
    arm_bend: float = 0.1
    lean: float = 0.0
    stride: float = 0.45


Motion = Callable[[float, Style], Pose]


@dataclass(frozen=True)
class Action:
    """One class of the sample data set."""

    sentence: str
    motion: Motion
    cycles: tuple[float, float] | None = None
    """Fewest and most repetitions in a clip; None is a motion that runs once, from phase 0 to 1."""


def sample_style(rng: np.random.Generator) -> Style:
    """Draw a performer's way of moving."""
    return Style(
        amplitude=rng.uniform(0.85, 1.15),
        arm_bend=rng.uniform(0.0, 0.3),
        lean=rng.uniform(-0.06, 0.06),
        stride=rng.uniform(0.38, 0.55),
    )


def sit_down(phase: float, style: Style) -> Pose:
    """From standing to sitting, seen from the side, the seat towards -x."""
    weight = _ease(phase)
    seated = Pose(
        left_upper_arm=0.35,
        right_upper_arm=0.25,
        left_forearm=0.95,
        right_forearm=0.85,
        left_thigh=1.42,
        right_thigh=1.52,
        left_shin=-0.05,
        right_shin=0.05,
    )
    pose = blend(_standing(style), seated, weight)
    return replace(pose, torso=style.lean + 0.55 * style.amplitude * sin(pi * weight))


def stand_up(phase: float, style: Style) -> Pose:
    """``sit_down`` backwards."""
    return sit_down(1.0 - phase, style)


def walk_right(phase: float, style: Style) -> Pose:
    """From the left to the right with straight legs, which look the same in both directions of time."""
    swing = style.stride * sin(2 * pi * 2 * phase)
    arms = 0.9 * style.amplitude * swing
    return Pose(
        left_upper_arm=-arms,
        left_forearm=-arms,
        right_upper_arm=arms,
        right_forearm=arms,
        left_thigh=swing,
        left_shin=swing,
        right_thigh=-swing,
        right_shin=-swing,
        travel=0.85 * (phase - 0.5),
    )


def walk_left(phase: float, style: Style) -> Pose:
    """``walk_right`` backwards."""
    return walk_right(1.0 - phase, style)


def pick_up(phase: float, style: Style) -> Pose:
    """Bends to a box on the ground at +x, grasps it and lifts it high."""
    bent = Pose(
        torso=1.25 + 0.1 * style.amplitude,
        left_upper_arm=0.25,
        right_upper_arm=0.35,
        left_forearm=0.2,
        right_forearm=0.3,
        left_thigh=0.75,
        right_thigh=0.65,
        left_shin=-0.45,
        right_shin=-0.4,
    )
    holding = Pose(
        torso=-0.05,
        left_upper_arm=2.1,
        right_upper_arm=2.2,
        left_forearm=2.5,
        right_forearm=2.6,
    )
    if phase < GRASP_PHASE:
        return blend(_standing(style), bent, _ease(phase / GRASP_PHASE))
    return blend(bent, holding, _ease((phase - GRASP_PHASE) / (1.0 - GRASP_PHASE)))


def put_down(phase: float, style: Style) -> Pose:
    """``pick_up`` backwards."""
    return pick_up(1.0 - phase, style)


def raise_arms(phase: float, style: Style) -> Pose:
    """Both arms go up at the sides, seen from the front."""
    arm = 0.2 + 2.5 * _ease(phase)
    return replace(
        _facing(style),
        left_upper_arm=-arm,
        right_upper_arm=arm,
        left_forearm=-arm - style.arm_bend,
        right_forearm=arm + style.arm_bend,
    )


def lower_arms(phase: float, style: Style) -> Pose:
    """``raise_arms`` backwards."""
    return raise_arms(1.0 - phase, style)


def jump(phase: float, style: Style) -> Pose:
    """Crouches, leaps with the arms thrown up, lands; seen from the side."""
    crouch = max(0.0, cos(2 * pi * phase)) * style.amplitude
    air = max(0.0, -cos(2 * pi * phase))
    arms = -0.7 * crouch + 2.5 * air
    return Pose(
        torso=0.55 * crouch + style.lean,
        left_upper_arm=arms - 0.1,
        right_upper_arm=arms + 0.1,
        left_forearm=arms,
        right_forearm=arms + 0.2,
        left_thigh=0.95 * crouch + 0.05,
        right_thigh=0.95 * crouch - 0.05,
        left_shin=-0.75 * crouch,
        right_shin=-0.75 * crouch - 0.1,
        lift=0.18 * air * style.amplitude,
    )


def clap(phase: float, style: Style) -> Pose:
    """Both hands meet before the chest and part again, seen from the front."""
    openness = 0.5 + 0.5 * cos(2 * pi * phase)
    upper = 0.55 + 0.7 * openness * style.amplitude
    forearm = 4.15 - 2.4 * openness  # from inwards over straight up to outwards
    return replace(
        _facing(style),
        left_upper_arm=-upper,
        right_upper_arm=upper,
        left_forearm=-forearm,
        right_forearm=forearm,
    )


def jumping_jack(phase: float, style: Style) -> Pose:
    """Arms and legs spread and close together in small leaps, seen from the front."""
    openness = 0.5 - 0.5 * cos(2 * pi * phase)
    arm, leg = 0.2 + 2.5 * openness, 0.05 + 0.5 * openness * style.amplitude
    return Pose(
        left_upper_arm=-arm,
        right_upper_arm=arm,
        left_forearm=-arm - style.arm_bend,
        right_forearm=arm + style.arm_bend,
        left_thigh=-leg,
        right_thigh=leg,
        left_shin=-leg,
        right_shin=leg,
        turn=1.0,
        lift=0.06 * sin(2 * pi * phase) ** 2,
    )


ACTIONS = {
    "sit_down": Action("The person is sitting down.", sit_down),
    "stand_up": Action("The person is standing up.", stand_up),
    "walk_left": Action("The person is walking to the left.", walk_left),
    "walk_right": Action("The person is walking to the right.", walk_right),
    "pick_up": Action("The person is picking up a box.", pick_up),
    "put_down": Action("The person is putting down a box.", put_down),
    "raise_arms": Action("The person is raising both arms.", raise_arms),
    "lower_arms": Action("The person is lowering both arms.", lower_arms),
    "jump": Action("The person is jumping.", jump, cycles=(1.0, 1.5)),
    "clap": Action("The person is clapping.", clap, cycles=(1.2, 1.8)),
    "jumping_jack": Action("The person is doing jumping jacks.", jumping_jack, cycles=(1.0, 1.5)),
}
LABEL_NAMES = tuple(ACTIONS)


def _standing(style: Style) -> Pose:
    bend = style.arm_bend
    return Pose(
        torso=style.lean,
        left_upper_arm=-0.05,
        left_forearm=bend,
        right_upper_arm=0.05,
        right_forearm=bend + 0.1,
        left_thigh=0.06,
        right_thigh=-0.06,
        left_shin=0.02,
        right_shin=-0.1,
    )


def _facing(style: Style) -> Pose:
    return Pose(
        left_upper_arm=-0.2,
        right_upper_arm=0.2,
        left_forearm=-0.2 - style.arm_bend,
        right_forearm=0.2 + style.arm_bend,
        left_thigh=-0.1,
        right_thigh=0.1,
        left_shin=-0.08,
        right_shin=0.08,
        turn=1.0,
    )


def _ease(phase: float) -> float:
    """0 to 1 with a soft start and a soft end; symmetric, and constant outside [0, 1]."""
    clipped = min(1.0, max(0.0, phase))
    return clipped * clipped * (3.0 - 2.0 * clipped)
