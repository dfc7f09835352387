import math

import pytest

from ivcp.evaluation.measure import measure, measure_disturbed
from ivcp.records import Labels
from tests.unit.evaluation.predicted import PAIR_LABELS, failed_clip, predicted_split


def test_numbers_match_hand_computed_ones():
    # truth: sit sit stand wave; predictions: sit stand stand wave; one more sit could not be decoded
    predicted = predicted_split(
        [0, 0, 1, 2],
        [[2, 0, 0], [0, 2, 0], [0, 2, 0], [0, 0, 2]],
        failed=[failed_clip("d:9", 0)],
    )
    found = measure(predicted, labels=PAIR_LABELS, majority_label=0)
    right, wrong = math.log(math.e**2 + 2) - 2, math.log(math.e**2 + 2)
    assert (found.num_clips, found.num_failed, found.min_frames, found.max_frames) == (5, 1, 6, 6)
    assert found.top1_accuracy == pytest.approx(3 / 5)
    assert found.top5_accuracy == pytest.approx(4 / 5)
    assert found.mean_class_accuracy == pytest.approx((1 / 3 + 1 + 1) / 3)
    assert found.majority_baseline == pytest.approx(3 / 5)
    assert found.loss == pytest.approx((3 * right + wrong) / 4, rel=1e-6)
    assert found.reversed_pairs_accuracy == pytest.approx(2 / 4)
    assert found.num_reversed_pair_clips == 4
    assert found.confusion_matrix == ((1, 1, 0), (0, 1, 0), (0, 0, 1))
    sit, stand, wave = found.classes
    assert (sit.precision, sit.recall, sit.f1) == pytest.approx((1.0, 1 / 3, 0.5))
    assert (sit.support, sit.num_failed) == (3, 1)
    assert (stand.precision, stand.recall) == pytest.approx((0.5, 1.0))
    assert (wave.f1, wave.num_failed) == (1.0, 0)


def test_top5_looks_at_five_classes():
    labels = Labels(label_names=tuple("abcdefg"))
    logits = [[7, 6, 5, 4, 3, 2, 1]]
    assert measure(predicted_split([4], logits), labels=labels, majority_label=0).top5_accuracy == 1
    assert measure(predicted_split([5], logits), labels=labels, majority_label=0).top5_accuracy == 0


def test_classes_without_clips_do_not_count_in_the_mean():
    found = measure(predicted_split([0, 0], [[1, 0, 0], [0, 1, 0]]), labels=PAIR_LABELS, majority_label=1)
    assert found.mean_class_accuracy == pytest.approx(0.5)
    assert found.majority_baseline == 0
    assert found.classes[2].support == 0


def test_a_split_in_which_every_clip_failed_has_accuracy_zero():
    predicted = predicted_split([], [], failed=[failed_clip("d:0", 0), failed_clip("d:1", 1)])
    found = measure(predicted, labels=PAIR_LABELS, majority_label=0)
    assert (found.top1_accuracy, found.top5_accuracy, found.mean_class_accuracy) == (0, 0, 0)
    assert found.loss is None
    assert found.num_failed == found.num_clips == 2


def test_an_empty_split_is_an_error():
    with pytest.raises(ValueError, match="set test_dataset or test_size"):
        measure(predicted_split([], []), labels=PAIR_LABELS, majority_label=0)


def test_disturbed_numbers_concern_the_pairs():
    # sit → stand (partner), stand → stand, stand → wave (neither), wave → wave (no pair)
    logits = [[0, 2, 0], [0, 2, 0], [1, 0, 2], [0, 0, 2]]
    found = measure_disturbed(predicted_split([0, 1, 1, 2], logits), labels=PAIR_LABELS, kind="reversed")
    assert found.top1_accuracy == pytest.approx(2 / 4)
    assert found.num_pair_clips == 3
    assert found.predicted_partner == pytest.approx(1 / 3)
    assert found.num_within_pair == 2
    assert found.right_within_pair == pytest.approx(1 / 2)


def test_without_pairs_the_pair_numbers_are_null():
    found = measure_disturbed(predicted_split([0], [[1, 0]]), labels=Labels(label_names=("a", "b")), kind=None)
    assert found.kind == "none"
    assert found.predicted_partner is None
    assert found.right_within_pair is None
