"""An articulated figure: the proportions of a body, a pose in joint angles, and where the joints then are."""

from dataclasses import dataclass, fields
from math import cos, sin

import numpy as np
from numpy.typing import NDArray

JOINT_NAMES = (
    "hip",
    "neck",
    "head",
    "left_shoulder",
    "left_elbow",
    "left_hand",
    "right_shoulder",
    "right_elbow",
    "right_hand",
    "left_hip",
    "left_knee",
    "left_foot",
    "right_hip",
    "right_knee",
    "right_foot",
)
JOINT_INDEX = {name: index for index, name in enumerate(JOINT_NAMES)}

Point = tuple[float, float]
Color = tuple[int, int, int]


@dataclass(frozen=True)
class Body:
    """The proportions of one performer. Lengths are fractions of the standing height."""

    head_radius: float
    torso: float
    upper_arm: float
    forearm: float
    thigh: float
    shin: float
    shoulder_half_width: float
    hip_half_width: float
    limb_thickness: float
    torso_thickness: float
    color: Color
    """RGB, dark: the backgrounds are light."""


@dataclass(frozen=True)
class Pose:
    """One posture. Angles in radians, 0 is a limb hanging straight down, positive turns it towards +x."""

    torso: float = 0.0
    """0 is upright; positive leans towards +x."""
    left_upper_arm: float = 0.0
    left_forearm: float = 0.0
    right_upper_arm: float = 0.0
    right_forearm: float = 0.0
    left_thigh: float = 0.0
    left_shin: float = 0.0
    right_thigh: float = 0.0
    right_shin: float = 0.0
    turn: float = 0.2
    """0 shows the body from the side, 1 from the front."""
    travel: float = 0.0
    """Where the feet stand along x, in standing heights."""
    lift: float = 0.0
    """How far the lower foot is above the ground, in standing heights."""

    def as_array(self) -> NDArray[np.float64]:
        """All fields in order, shape (12,)."""
        return np.array(tuple(vars(self).values()))


POSE_FIELDS = tuple(field.name for field in fields(Pose))


def blend(start: Pose, end: Pose, weight: float) -> Pose:
    """The pose between two poses: ``start`` at weight 0, ``end`` at weight 1."""
    values = (1.0 - weight) * start.as_array() + weight * end.as_array()
    return Pose(*values.tolist())


def mirror(pose: Pose) -> Pose:
    """The same posture seen in a mirror: the other way round, left and right limbs exchanged."""
    return Pose(
        torso=-pose.torso,
        left_upper_arm=-pose.right_upper_arm,
        left_forearm=-pose.right_forearm,
        right_upper_arm=-pose.left_upper_arm,
        right_forearm=-pose.left_forearm,
        left_thigh=-pose.right_thigh,
        left_shin=-pose.right_shin,
        right_thigh=-pose.left_thigh,
        right_shin=-pose.left_shin,
        turn=pose.turn,
        travel=-pose.travel,
        lift=pose.lift,
    )


def sample_body(rng: np.random.Generator) -> Body:
    """Draw a performer's proportions."""
    head_radius = rng.uniform(0.065, 0.085)
    torso, thigh, shin = rng.uniform(0.27, 0.33), rng.uniform(0.21, 0.26), rng.uniform(0.21, 0.26)
    scale = 1.0 / (torso + thigh + shin + 2.2 * head_radius)
    shade = rng.uniform(0, 60)
    return Body(
        head_radius=head_radius * scale,
        torso=torso * scale,
        upper_arm=rng.uniform(0.16, 0.20),
        forearm=rng.uniform(0.16, 0.20),
        thigh=thigh * scale,
        shin=shin * scale,
        shoulder_half_width=rng.uniform(0.08, 0.11),
        hip_half_width=rng.uniform(0.035, 0.06),
        limb_thickness=rng.uniform(0.08, 0.105),
        torso_thickness=rng.uniform(0.12, 0.17),
        color=_dark_color(rng, shade),
    )


def joint_positions(pose: Pose, body: Body) -> NDArray[np.float64]:
    """Positions of the joints in standing heights, shape (15, 2), in the order of ``JOINT_NAMES``.

    x grows to the right, y downwards; the ground is y = 0, ``pose.travel`` is the x midway between the feet.
    """
    hip = (0.0, 0.0)
    neck = _along(hip, np.pi - pose.torso, body.torso)
    head = _along(neck, np.pi - pose.torso, 1.2 * body.head_radius)
    shoulder, side = body.shoulder_half_width * pose.turn, body.hip_half_width * pose.turn
    points = [
        hip,
        neck,
        head,
        *_limb(
            (neck[0] - shoulder, neck[1]),
            body.upper_arm,
            body.forearm,
            pose.left_upper_arm,
            pose.left_forearm,
        ),
        *_limb(
            (neck[0] + shoulder, neck[1]),
            body.upper_arm,
            body.forearm,
            pose.right_upper_arm,
            pose.right_forearm,
        ),
        *_limb((-side, 0.0), body.thigh, body.shin, pose.left_thigh, pose.left_shin),
        *_limb((side, 0.0), body.thigh, body.shin, pose.right_thigh, pose.right_shin),
    ]
    return _stand_on_ground(np.array(points), pose)


def _stand_on_ground(points: NDArray[np.float64], pose: Pose) -> NDArray[np.float64]:
    left, right = points[JOINT_INDEX["left_foot"]], points[JOINT_INDEX["right_foot"]]
    offset = (pose.travel - (left[0] + right[0]) / 2, -max(left[1], right[1]) - pose.lift)
    grounded: NDArray[np.float64] = points + np.array(offset)
    return grounded


def _limb(start: Point, upper: float, lower: float, upper_angle: float, lower_angle: float) -> list[Point]:
    middle = _along(start, upper_angle, upper)
    return [start, middle, _along(middle, lower_angle, lower)]


def _along(start: Point, angle: float, length: float) -> Point:
    return start[0] + length * sin(angle), start[1] + length * cos(angle)


def _dark_color(rng: np.random.Generator, shade: float) -> Color:
    red, green, blue = (int(shade + rng.uniform(0, 35)) for _ in range(3))
    return red, green, blue
