import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score

from ivcp.evaluation.intervals import Resamples
from ivcp.evaluation.targets.average_precision import resampled_mean_average_precision, weighted_average_precision
from ivcp.evaluation.targets.thresholds import FEWEST_POSITIVE, best_threshold, fit_thresholds


@pytest.mark.parametrize("seed", range(5))
def test_no_threshold_has_a_higher_f1(seed: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities, truth = rng.random(80).round(2), rng.random(80) < 0.3
    found = best_threshold(probabilities, truth)
    best = max(f1_score(truth, probabilities >= value, zero_division=0) for value in [0.0, *np.unique(probabilities)])
    assert f1_score(truth, probabilities >= found) == pytest.approx(best)


def test_equal_scores_show_all_clips() -> None:
    assert best_threshold(np.full(6, 0.4), np.arange(6) < 2) <= 0.4


def test_a_class_with_few_clips_keeps_one_half() -> None:
    rng = np.random.default_rng(0)
    probabilities, truth = rng.random((40, 3)) * 0.4, np.zeros((40, 3), dtype=bool)
    truth[: FEWEST_POSITIVE - 1, 0] = True
    truth[:20, 1] = True
    found = fit_thresholds(probabilities, truth, split="val")
    assert found.thresholds[0] == found.thresholds[2] == 0.5
    assert found.thresholds[1] < 0.4
    assert found.num_positive == (FEWEST_POSITIVE - 1, 20, 0)
    assert found.f1_macro > found.f1_macro_before


def test_resamples_are_measured_as_scikit_learn_does() -> None:
    rng = np.random.default_rng(0)
    probabilities, truth = rng.random((30, 2)).round(1), rng.random((30, 2)) < 0.4
    resamples = Resamples(np.arange(30) // 3)
    times = next(resamples.times_of_clips())[:20]
    found = weighted_average_precision(probabilities[:, 0], truth[:, 0], times)
    for row, weights in enumerate(times):
        repeated = np.repeat(np.arange(30), weights)
        expected = average_precision_score(truth[repeated, 0], probabilities[repeated, 0])
        assert found[row] == pytest.approx(expected)
    means = resampled_mean_average_precision(probabilities, truth, resamples)
    assert means is not None
    interval = resamples.between(means)
    assert interval is not None
    assert interval.low < average_precision_score(truth, probabilities) < interval.high
