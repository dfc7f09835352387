from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve

from ivcp.evaluation.confidence import (
    answers_of,
    confidence_quality,
    coverage_curve,
    negative_log_likelihood,
    split_by_threshold,
)
from tests.unit.evaluation.calibrations import answered, drawn


def test_the_calibration_error_is_that_of_fifteen_equal_bins():
    # two in one bin (0.93 to 1), one in (0.6, 0.67], one in (0.67, 0.73]
    predicted = answered([0.95, 0.99, 0.65, 0.7], [True, False, True, False])
    found = confidence_quality(predicted)
    assert found.expected_calibration_error == pytest.approx((2 * abs(0.97 - 0.5) + 0.35 + 0.7) / 4)
    assert [(each.num_clips, each.accuracy) for each in found.bins] == [(1, 1.0), (1, 0.0), (2, 0.5)]
    assert [each.confidence for each in found.bins] == pytest.approx([0.65, 0.7, 0.97])


def test_the_bins_are_scikit_learns():
    predicted = drawn(500, temperature=2.0)
    confidences, is_right = answers_of(predicted)
    accuracies, means = calibration_curve(is_right, confidences, n_bins=15)
    found = confidence_quality(predicted)
    assert [each.accuracy for each in found.bins] == pytest.approx(accuracies.tolist())
    assert [each.confidence for each in found.bins] == pytest.approx(means.tolist())


def test_what_chance_alone_gives_is_what_true_confidences_show():
    found = [confidence_quality(drawn(100, seed=seed)) for seed in range(60)]
    shown = np.mean([each.expected_calibration_error for each in found])
    assert np.mean([each.expected_by_chance for each in found]) == pytest.approx(shown, rel=0.1)


def test_the_likelihood_is_cross_entropy():
    predicted = drawn(40)
    expected = torch.nn.functional.cross_entropy(torch.tensor(predicted.logits), torch.tensor(predicted.labels))
    assert negative_log_likelihood(predicted) == pytest.approx(expected.item(), rel=1e-5)


def test_surer_answers_are_fewer():
    points = coverage_curve(answered([0.9, 0.8, 0.8, 0.6], [True, True, False, False]))
    assert [(point.coverage, point.accuracy) for point in points] == [(0.25, 1.0), (0.75, 2 / 3), (1.0, 0.5)]
    assert [point.threshold for point in points] == pytest.approx([0.9, 0.8, 0.6], abs=2e-6)


def test_a_curve_of_many_clips_has_a_hundred_points():
    predicted = drawn(3000)
    points = coverage_curve(predicted)
    assert 90 <= len(points) <= 100
    assert points[-1].coverage == 1
    assert points[-1].accuracy == answers_of(predicted)[1].mean()
    assert all(high.threshold > low.threshold for high, low in pairwise(points))


def test_a_threshold_parts_sure_from_unsure():
    predicted = answered([0.9, 0.8, 0.8, 0.6], [True, True, False, False])
    sure, unsure_accuracy = split_by_threshold(predicted, 0.7)
    assert (sure.coverage, sure.accuracy, unsure_accuracy) == (0.75, 2 / 3, 0.0)
    none, of_all = split_by_threshold(predicted, 0.95)
    assert (none.coverage, none.accuracy, of_all) == (0.0, None, 0.5)
