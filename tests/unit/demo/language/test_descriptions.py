"""What is said about drawn clips is to be seen in them, and names no action."""

from __future__ import annotations

import numpy as np
import pytest

from ivcp.demo.actions import ACTIONS, LABEL_NAMES
from ivcp.demo.figure import Pose, joint_positions, sample_body
from ivcp.demo.language.clips import draw_described_clips
from ivcp.demo.language.descriptions import FrameDescription


def described(pose, *, shift=0.0):
    body = sample_body(np.random.default_rng(0))
    joints = joint_positions(pose, body) * 1.4 + np.array([shift, 0.9])
    return FrameDescription.of(joints.astype(np.float32), "blue")


@pytest.mark.parametrize(
    ("pose", "shift", "words"),
    [
        (Pose(), 0.0, ("blue", "middle", "down", "straight")),
        (Pose(), -0.6, ("blue", "left", "down", "straight")),
        (Pose(), 0.6, ("blue", "right", "down", "straight")),
        (
            Pose(left_upper_arm=-2.8, right_upper_arm=2.8, left_forearm=-2.8, right_forearm=2.8),
            0.0,
            ("blue", "middle", "up", "straight"),
        ),
        (Pose(torso=1.0), 0.0, ("blue", "middle", "down", "bent")),
    ],
)
def test_a_pose_is_described_in_words(pose, shift, words):
    assert described(pose, shift=shift).words == words


def test_questions_are_answered_by_the_frames_they_are_about():
    clip = draw_described_clips(3, 1, seed=0)[0]
    first, last = clip.descriptions[0], clip.descriptions[-1]
    answers = {each.question: each.answer for each in clip.questions}
    assert first.color in answers["What color is the figure?"]
    assert first.place in answers["Where is the figure at the beginning?"]
    assert last.place in answers["Where is the figure at the end?"]
    assert last.hands in answers["Where are the hands at the end?"]
    description = answers["Describe the figure at the end."].replace(",", " ").replace(".", " ").split()
    assert set(last.words) <= {*description}


def test_the_color_that_is_named_is_the_color_that_is_drawn():
    for clip in draw_described_clips(0, 40, seed=1):
        dark = clip.frames.reshape(-1, 3)[clip.frames.reshape(-1, 3).astype(int).sum(axis=1).argmin()].astype(int)
        red, green, blue = dark - dark.min()
        is_color = {
            "black": max(red, green, blue) < 60,
            "red": red > 60 > max(green, blue),
            "green": green > 50 > max(red, blue),
            "blue": blue > 60 > max(red, green),
            "purple": min(red, blue) > 50 > green,
        }
        assert is_color[clip.descriptions[0].color], (clip.descriptions[0].color, dark)


def test_frames_left_out_keep_the_last_one():
    clip = draw_described_clips(0, 1, seed=0)[0]
    half = clip.every(2)
    assert [*half.descriptions] == [*clip.descriptions[1::2]]
    assert np.array_equal(half.frames, clip.frames[1::2])
    assert len(half.joints) == 4


def test_a_clip_depends_on_its_number_and_the_seed_alone():
    together, alone = draw_described_clips(0, 4, seed=5)[3], draw_described_clips(3, 1, seed=5)[0]
    assert np.array_equal(together.frames, alone.frames)
    assert together.questions == alone.questions
    assert not np.array_equal(alone.frames, draw_described_clips(3, 1, seed=6)[0].frames)


def test_no_action_of_the_sample_data_is_named():
    said = " ".join(
        f"{each.question} {each.answer}" for clip in draw_described_clips(0, 200, seed=0) for each in clip.questions
    ).lower()
    names = {word for name in LABEL_NAMES for word in name.split("_")} - {"left", "right", "up", "down"}
    verbs = {word for action in ACTIONS.values() for word in action.sentence.lower().split() if word.endswith("ing")}
    assert not [word for word in (*names, *verbs, "person") if word in said.replace(".", "").split()]
