import numpy as np

from ivcp.demo.clip import draw_clip, sample_performer, sample_phases


def test_a_clip_follows_from_its_seed_alone():
    performer = sample_performer(1, 5)
    first, fps = draw_clip("pick_up", performer, np.random.default_rng(2))
    again, _ = draw_clip("pick_up", sample_performer(1, 5), np.random.default_rng(2))
    np.testing.assert_array_equal(first, again)
    assert first.dtype == np.uint8
    assert 12 <= fps <= 25


def test_the_figure_is_dark_before_a_light_background():
    for seed in range(5):
        frames, _ = draw_clip("clap", sample_performer(0, seed), np.random.default_rng(seed))
        brightness = frames.mean(axis=-1)
        assert np.median(brightness) > 140
        assert brightness.min() < 100


def test_the_windows_of_a_pair_do_not_tell_the_two_apart():
    windows = np.array([sample_phases(None, 2, np.random.default_rng(seed)) for seed in range(4000)])
    backwards = 1.0 - windows[:, ::-1]
    np.testing.assert_allclose(windows.mean(axis=0), backwards.mean(axis=0), atol=0.005)
    np.testing.assert_allclose(windows.std(axis=0), backwards.std(axis=0), atol=0.005)
