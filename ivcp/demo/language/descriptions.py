"""What is to be seen in a drawn clip, in plain words: how a figure looks and where its parts are, no action."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ivcp.demo.figure import JOINT_INDEX, Color

COLORS: dict[str, Color] = {
    "black": (25, 25, 25),
    "red": (150, 20, 25),
    "green": (20, 105, 35),
    "blue": (25, 45, 150),
    "purple": (115, 20, 125),
}
"""Dark ones: the backgrounds are light."""

_SIDE = 0.2
"""Further than this from the middle is left or right; positions in a frame go from -1 to 1."""
_HAND_LEVEL = 0.15
_BENT = 0.45
"""Radians."""


@dataclass(frozen=True)
class FrameDescription:
    """One frame in words."""

    color: str
    place: str
    """left, middle or right."""
    hands: str
    """up, middle or down."""
    body: str
    """straight or bent."""

    @classmethod
    def of(cls, joints: NDArray[np.float32], color: str) -> Self:
        """Describes a figure by its joints in the frame, (15, 2), from -1 to 1."""
        at = {name: joints[index] for name, index in JOINT_INDEX.items()}
        hip, neck = at["hip"], at["neck"]
        hands = (at["left_hand"][1] + at["right_hand"][1] - hip[1] - neck[1]) / 2
        tilt = abs(np.arctan2(neck[0] - hip[0], hip[1] - neck[1]))
        return cls(
            color=color,
            place=_level(float(hip[0]), _SIDE, ("left", "middle", "right")),
            hands=_level(float(hands), _HAND_LEVEL, ("up", "middle", "down")),
            body="bent" if tilt > _BENT else "straight",
        )

    @property
    def words(self) -> tuple[str, ...]:
        """Four words, one for each token of a frame."""
        return (self.color, self.place, self.hands, self.body)


@dataclass(frozen=True)
class Answered:
    """A question about a clip, and what is right."""

    question: str
    answer: str


def questions_about(frames: tuple[FrameDescription, ...]) -> tuple[Answered, ...]:
    """Questions about a clip, the first one about all that is said of a frame; `frames` are in the order of time."""
    first, last = frames[0], frames[-1]
    describe = f"The figure is {last.color}, {_where(last.place)} and {last.body}, with its hands {_hands(last)}."
    return (
        Answered("Describe the figure at the end.", describe),
        Answered("What color is the figure?", f"The figure is {first.color}."),
        Answered("Where is the figure at the beginning?", f"The figure is {_where(first.place)}."),
        Answered("Where is the figure at the end?", f"The figure is {_where(last.place)}."),
        Answered("Where are the hands at the end?", f"The hands are {_hands(last)}."),
    )


def _where(place: str) -> str:
    return "in the middle" if place == "middle" else f"on the {place}"


def _hands(frame: FrameDescription) -> str:
    return "in the middle" if frame.hands == "middle" else frame.hands


def _level(value: float, limit: float, names: tuple[str, str, str]) -> str:
    return names[0] if value < -limit else names[2] if value > limit else names[1]
