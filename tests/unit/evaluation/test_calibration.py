import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax

from ivcp.evaluation.calibration import (
    NotCalibratedError,
    choose_threshold,
    fit_calibration,
    measure_confidence,
)
from ivcp.evaluation.measure import measure
from ivcp.records import Labels
from ivcp.records.calibration import ALWAYS_UNSURE
from tests.unit.evaluation.calibrations import answered, drawn
from tests.unit.evaluation.predicted import PAIR_LABELS, failed_clip, predicted_split


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_a_known_temperature_is_found(temperature):
    predicted = drawn(4000, temperature=temperature)
    found = fit_calibration(predicted, split="val", sure_accuracy=0.95)
    assert found.temperature == pytest.approx(temperature, rel=0.05)
    assert found.after.expected_calibration_error < 0.02
    if temperature != 1:
        assert found.before.expected_calibration_error > 0.05
        assert found.after.negative_log_likelihood < found.before.negative_log_likelihood
    assert found == fit_calibration(predicted, split="val", sure_accuracy=0.95)


def _one_hot(labels, size=1.0, classes=4):
    return (size * np.eye(classes)[labels]).astype(np.float32)


LABELS = np.arange(60) % 4
EXTREMES = {
    "every one right": (_one_hot(LABELS, 8.0), LABELS),
    "every one wrong": (_one_hot((LABELS + 1) % 4, 8.0), LABELS),
    "huge and right": (_one_hot(LABELS, 2e4) - 1e4, LABELS),
    "huge and wrong": (_one_hot((LABELS + 1) % 4, 2e4) - 1e4, LABELS),
    "huge, right but for one": (_one_hot(np.where(np.arange(60) == 5, 0, LABELS), 2e4) - 1e4, LABELS),
    "all the same": (np.full((60, 4), 7.0, dtype=np.float32), LABELS),
    "one class": (np.full((60, 1), 3.0, dtype=np.float32), np.zeros(60, dtype=np.int64)),
    "one class of several": (_one_hot(np.zeros(60, dtype=np.int64), 5.0), np.zeros(60, dtype=np.int64)),
    "tiny": (_one_hot(LABELS, 1e-30), LABELS),
}


@pytest.mark.parametrize("name", EXTREMES)
def test_extreme_logits_give_something_finite_and_no_certainty(name):
    logits, labels = EXTREMES[name]
    predicted = predicted_split(labels.tolist(), logits.tolist())
    found = fit_calibration(predicted, split="val", sure_accuracy=0.95)
    assert math.isfinite(found.temperature)
    assert found.temperature > 0
    confidence = softmax(logits.astype(np.float64) / found.temperature, axis=1).max(axis=1).mean()
    if name == "one class":
        assert confidence == 1
    elif "wrong" in name or name == "all the same":
        assert confidence == pytest.approx(1 / 4, abs=0.01)
        assert found.unsure_below == ALWAYS_UNSURE
    else:  # as if of 61 clips one were of an unknown class
        assert confidence == pytest.approx(1 - 3 / 4 / 61, abs=1e-3) or name == "huge, right but for one"
        assert 0.9 < confidence < 0.995
        assert found.unsure_below < confidence


def test_a_temperature_changes_no_answer():
    predicted = drawn(400, classes=8)
    labels = Labels(label_names=tuple("abcdefgh"))
    expected = measure(predicted, labels=labels, majority_label=0)
    for temperature in (0.2, 5.0):
        calibrated = replace(predicted, temperature=temperature)
        assert measure(calibrated, labels=labels, majority_label=0) == expected
        best = np.argsort(-calibrated.probabilities, axis=1, kind="stable")[:, :5]
        np.testing.assert_array_equal(best, np.argsort(-predicted.logits, axis=1, kind="stable")[:, :5])
        assert calibrated.probabilities.max() != predicted.probabilities.max()


def test_the_threshold_is_the_lowest_that_holds_with_one_more_mistake():
    confidences = np.linspace(0.99, 0.51, 49).tolist()
    is_right = [number != 10 and number < 38 for number in range(49)]  # the eleventh is wrong, and the last eleven
    found = choose_threshold(answered(confidences, is_right), 0.933)
    assert found == pytest.approx(confidences[37], abs=2e-6)  # 37 of 38 + 1 is 0.949, 37 of 39 + 1 is 0.925
    assert found <= confidences[37]


def test_few_right_answers_do_not_show_that_nearly_all_are_right():
    """18 of 18 is 0.947 with one mistake more; 19 of 19 is 0.95."""
    assert choose_threshold(answered([0.9] * 18, [True] * 18), 0.95) == ALWAYS_UNSURE
    assert choose_threshold(answered([0.9] * 19, [True] * 19), 0.95) == pytest.approx(0.9, abs=2e-6)


def test_without_a_wanted_accuracy_there_is_no_threshold():
    found = fit_calibration(drawn(100), split="val", sure_accuracy=None)
    assert found.unsure_below is None
    assert found.is_unsure(0.01) is None


def test_too_few_clips_give_no_calibration():
    with pytest.raises(NotCalibratedError, match=r"the val split has 49 clips .* fewer than 50 .* val_size"):
        fit_calibration(drawn(49), split="val", sure_accuracy=0.95)


def test_what_the_threshold_gives_is_measured_on_other_clips():
    calibration = fit_calibration(drawn(2000, temperature=2), split="val", sure_accuracy=0.9)
    found = measure_confidence(drawn(2000, temperature=2, seed=1), calibration=calibration)
    assert found.sure.accuracy == pytest.approx(0.9, abs=0.02)
    assert 0.5 < found.sure.coverage < 1
    assert found.unsure_accuracy < 0.8
    assert found.after.expected_calibration_error < found.before.expected_calibration_error / 3
    headline = found.headline()
    assert headline["expected_calibration_error"] == found.after.expected_calibration_error
    assert headline["uncalibrated_expected_calibration_error"] == found.before.expected_calibration_error
    assert headline["sure_coverage"] == found.sure.coverage


def test_without_a_calibration_the_confidences_are_measured_as_they_are():
    found = measure_confidence(drawn(30), calibration=None, why_not="there is no validation split")
    assert found.final == found.before
    assert (found.after, found.sure) == (None, None)
    assert "temperature" not in {name for name, value in found.headline().items() if value is not None}


def test_a_split_without_a_decoded_clip_has_no_confidence():
    nothing = predicted_split([], [], failed=[failed_clip("d:0", 0)])
    assert measure_confidence(nothing, calibration=None) is None
    assert measure(nothing, labels=PAIR_LABELS, majority_label=0).loss is None
