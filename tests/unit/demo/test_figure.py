import numpy as np
import pytest

from ivcp.demo.actions import ACTIONS, REVERSED_PAIRS, sample_style
from ivcp.demo.figure import JOINT_INDEX, JOINT_NAMES, Pose, blend, joint_positions, mirror, sample_body

PHASES = np.linspace(0, 1, 21)


@pytest.mark.parametrize(("action", "partner"), REVERSED_PAIRS)
def test_a_pair_is_the_same_motion_run_backwards(action, partner):
    style = sample_style(np.random.default_rng(3))
    forwards = [ACTIONS[action].motion(phase, style).as_array() for phase in PHASES]
    backwards = [ACTIONS[partner].motion(phase, style).as_array() for phase in PHASES]
    np.testing.assert_allclose(forwards, backwards[::-1], atol=1e-12)
    assert not np.allclose(forwards, backwards, atol=0.1)


@pytest.mark.parametrize("label", ACTIONS)
def test_nobody_sinks_into_the_ground_or_falls_apart(label):
    rng = np.random.default_rng(5)
    body, style = sample_body(rng), sample_style(rng)
    feet = [JOINT_INDEX["left_foot"], JOINT_INDEX["right_foot"]]
    for phase in PHASES:
        joints = joint_positions(ACTIONS[label].motion(phase, style), body)
        assert joints.shape == (len(JOINT_NAMES), 2)
        assert joints[feet, 1].max() <= 1e-12
        thigh = joints[JOINT_INDEX["left_knee"]] - joints[JOINT_INDEX["left_hip"]]
        assert np.linalg.norm(thigh) == pytest.approx(body.thigh)


def test_a_standing_figure_is_one_height_tall():
    body = sample_body(np.random.default_rng(0))
    joints = joint_positions(Pose(), body)
    assert joints[JOINT_INDEX["head"], 1] - body.head_radius == pytest.approx(-1.0)


def test_mirroring_twice_changes_nothing_and_once_flips_x():
    pose = Pose(torso=0.4, left_upper_arm=1.0, right_forearm=-0.5, left_thigh=0.3, travel=0.2, lift=0.1)
    body = sample_body(np.random.default_rng(0))
    assert mirror(mirror(pose)) == pose
    head = JOINT_INDEX["head"]
    expected = joint_positions(pose, body)[head] * (-1.0, 1.0)
    np.testing.assert_allclose(joint_positions(mirror(pose), body)[head], expected)


def test_blend_runs_from_one_pose_to_the_other():
    start, end = Pose(torso=0.0, lift=0.2), Pose(torso=1.0)
    assert blend(start, end, 0.0) == start
    assert blend(start, end, 1.0) == end
    assert blend(start, end, 0.25).torso == pytest.approx(0.25)
