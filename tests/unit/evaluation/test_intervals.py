import numpy as np
import pytest
from scipy.stats import binomtest

from ivcp.evaluation.intervals import Resamples


def _test_set(random: np.random.Generator, *, num_groups: int, clips: int, mean: float, spread: float):
    """Groups whose clips are recognised more or less often, and which ones are."""
    chances = random.beta(mean * spread, (1 - mean) * spread, num_groups)
    groups = np.repeat(np.arange(num_groups), clips)
    return groups, random.random(len(groups)) < np.repeat(chances, clips)


@pytest.mark.parametrize(
    ("num_groups", "clips", "mean", "spread"), [(12, 8, 0.7, 4.0), (40, 5, 0.85, 6.0), (60, 1, 0.8, 1e6)]
)
def test_they_hold_the_truth_as_often_as_they_say(num_groups: int, clips: int, mean: float, spread: float):
    random = np.random.default_rng(0)
    covered, covered_alone = [], []
    for _ in range(200):
        groups, hits = _test_set(random, num_groups=num_groups, clips=clips, mean=mean, spread=spread)
        found = Resamples(groups).share(hits)
        assert found is not None
        covered.append(found.low <= mean <= found.high)
        alone = binomtest(int(hits.sum()), len(hits)).proportion_ci(method="wilson")
        covered_alone.append(alone.low <= mean <= alone.high)
    assert np.mean(covered) >= 0.90  # of 0.95, by 200 test sets
    assert np.mean(covered) <= 0.99
    if clips > 1:  # as if clips of a group were independent
        assert np.mean(covered_alone) < np.mean(covered) - 0.05


def test_where_all_are_right_groups_count_as_independent_clips():
    groups, hits = np.repeat(np.arange(10), 5), np.ones(50, dtype=bool)
    found, none = Resamples(groups).share(hits), Resamples(groups).share(~hits)
    exact = binomtest(10, 10).proportion_ci(method="wilson")
    assert found is not None
    assert none is not None
    assert (found.low, found.high) == pytest.approx((exact.low, 1.0))
    assert (none.low, none.high) == pytest.approx((0.0, 1 - exact.low))


def test_a_single_group_knows_next_to_nothing():
    """One performer: whether others would be recognised cannot be told."""
    hits = np.array([True, False, True, True])
    found = Resamples(np.zeros(4)).share(hits)
    assert found is not None
    assert found.high - found.low > 0.75


def test_the_mean_recall_weighs_classes_alike():
    random = np.random.default_rng(1)
    truth = np.repeat([0, 1], [180, 20])
    hits = np.where(truth == 0, random.random(200) < 0.9, random.random(200) < 0.4)
    resamples = Resamples(np.arange(200))
    found, share = resamples.mean_recall(truth, hits), resamples.share(hits)
    assert found is not None
    assert share is not None
    mean = (hits[truth == 0].mean() + hits[truth == 1].mean()) / 2
    assert found.low < mean < found.high
    assert found.high - found.low > 1.5 * (share.high - share.low)  # half of it is of twenty clips


def test_a_difference_is_of_the_same_clips():
    """Both are right on much the same clips: their difference is known better than either."""
    random = np.random.default_rng(2)
    ours = random.random(400) < 0.6
    theirs = ours & (random.random(400) < 0.9)
    resamples = Resamples(np.arange(400))
    found, alone = resamples.difference(ours, theirs), resamples.share(ours)
    assert found is not None
    assert alone is not None
    assert 0 < found.low < ours.mean() - theirs.mean() < found.high
    assert found.high - found.low < 0.8 * (alone.high - alone.low)
    assert resamples.difference(ours, ours) is None


def test_no_clips_have_none():
    resamples = Resamples(np.zeros(0))
    assert resamples.share(np.zeros(0, dtype=bool)) is None
    assert resamples.mean_recall(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=bool)) is None
