import numpy as np

from ivcp.demo.figure import POSE_FIELDS
from ivcp.demo.random_motion import draw_random_clip, sample_motions


def test_a_random_clip_comes_with_the_joints_it_shows():
    motions = sample_motions(3, np.random.default_rng(0))
    clips = [draw_random_clip(motions, np.random.default_rng(seed), num_frames=8, size=48) for seed in range(30)]
    assert clips[0].frames.shape == (8, 48, 48, 3)
    assert clips[0].joints.shape == (8, 15, 2)
    assert {clip.motion for clip in clips} == set(range(6))
    for clip in clips:
        column, row = np.rint((clip.joints[4, 0] + 1) / 2 * 48).astype(int)
        if 0 < column < 47 and 0 < row < 47:
            assert clip.frames[4, row, column].mean() < np.median(clip.frames[4].mean(axis=-1)) - 30


def test_motions_are_smooth():
    for motion in sample_motions(20, np.random.default_rng(1)):
        assert motion.shape == (33, len(POSE_FIELDS))
        assert np.abs(np.diff(motion, axis=0)).max() < 1.5
