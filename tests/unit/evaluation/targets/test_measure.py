"""Figures of a split, those of clips that could not be decoded among them."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score

from ivcp.evaluation.intervals import Resamples
from ivcp.evaluation.targets.average_precision import weighted_average_precision
from ivcp.evaluation.targets.evaluate import TargetEvaluation
from ivcp.evaluation.targets.measure import class_table, confusion_matrices, figures, intervals, loss
from ivcp.evaluation.targets.predict import PredictedTargets
from ivcp.evaluation.targets.report import prediction_rows
from ivcp.records import Labels, QuarantinedClip
from ivcp.records.problem_types import Head, TargetScale

CLASSES = Labels(problem_type="multi_label_classification", label_names=("a", "b", "c"))
HEADS = Labels.of_heads((Head(name="verb", label_names=("cut", "mix")), Head(name="noun", label_names=("x", "y"))))
SPEED = Labels.of_value("speed", TargetScale(mean=1.0, std=2.0))
HALF = np.full(3, 0.5)


def predicted(of: Labels, targets: np.ndarray, outputs: np.ndarray, **failed: object) -> PredictedTargets:
    clip = {"clip_id": "d:9", "dataset": "d", "row": 9, "video": "v", "split": "test", "reason": "empty", "detail": ""}
    names = tuple(f"d:{row}" for row in range(len(targets)))
    broken = (QuarantinedClip.model_validate(clip | failed),) if failed else ()
    return PredictedTargets(of, names, names, targets, outputs.astype(np.float32), broken)


def test_a_clip_that_failed_shows_none_of_its_classes() -> None:
    rng = np.random.default_rng(0)
    truth, outputs = rng.integers(0, 2, (20, 3)), rng.normal(size=(20, 3))
    found = figures(predicted(CLASSES, truth, outputs, labels=[0, 2]), HALF)
    all_truth = np.vstack([truth, [1, 0, 1]])
    shares = np.vstack([1 / (1 + np.exp(-outputs.astype(np.float32))), [-1, -1, -1]])
    decoded = average_precision_score(truth, shares[:-1], average=None) * truth.sum(axis=0) / all_truth.sum(axis=0)
    assert found["mean_average_precision"] == pytest.approx(decoded.mean())
    once = np.ones((1, 21), dtype=np.int64)
    resampled = [weighted_average_precision(shares[:, c], all_truth[:, c] > 0, once)[0] for c in range(3)]
    assert resampled == pytest.approx(decoded)
    none_decoded = predicted(CLASSES, np.zeros((0, 3)), np.zeros((0, 3)), labels=[0, 2])
    assert figures(none_decoded, HALF)["mean_average_precision"] == 0.0
    assert found["f1_micro"] == pytest.approx(f1_score(all_truth, shares >= 0.5, average="micro"))
    table = class_table(predicted(CLASSES, truth, outputs, labels=[0, 2]), HALF)
    assert [row.num_failed for row in table] == [1, 0, 1]
    assert [row.support for row in table] == all_truth.sum(axis=0).tolist()


def test_a_class_that_no_clip_has_is_in_no_mean() -> None:
    truth, outputs = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0]]), np.array([[3.0, -3, 3], [-3, 3, 3], [3, 3, 3]])
    found = predicted(CLASSES, truth, outputs)
    assert figures(found, HALF)["mean_average_precision"] == 1.0
    assert figures(found, HALF)["f1_macro"] == 1.0
    assert class_table(found, HALF)[2].average_precision is None


def test_no_head_of_a_clip_that_failed_is_right() -> None:
    truth = np.array([[0, 1], [1, 0], [1, 1]])
    outputs = np.array([[2.0, 1, 1, 2], [1, 2, 1, 2], [1, 2, 1, 2]])
    found = predicted(HEADS, truth, outputs, labels=[0, 0])
    assert figures(found, HALF)["joint_accuracy"] == 2 / 4
    assert figures(found, HALF)["verb_top1_accuracy"] == 3 / 4
    assert confusion_matrices(found) == {"verb": ((1, 0), (0, 2)), "noun": ((0, 1), (0, 2))}
    rows = prediction_rows(found, None)
    assert rows[1].predicted_names == ("verb: mix", "noun: y")
    assert (rows[3].label_names, rows[3].predicted_names) == (("verb: cut", "noun: x"), None)
    found_intervals = intervals(found, Resamples(np.arange(4)), HALF)
    assert set(found_intervals) == {"joint_accuracy", "verb_top1_accuracy", "noun_top1_accuracy"}


def test_a_number_that_was_not_predicted_is_in_no_figure() -> None:
    truth, outputs = np.array([1.0, 3.0, 5.0, 2.0]), np.array([[0.0], [1.5], [1.0], [0.5]])
    found = predicted(SPEED, truth, outputs, value=100.0)
    assert figures(found, HALF)["mae"] == pytest.approx((0 + 1 + 2 + 0) / 4)
    assert loss(found) == pytest.approx((0 + 1 + 4 + 0) / 4 / 4)
    assert prediction_rows(found, None)[1].predicted_value == pytest.approx(4.0)
    between = intervals(found, Resamples(np.arange(5)), HALF)["mae"]
    assert between.low <= 0.75 <= between.high


def test_losses_of_two_models_of_numbers_are_on_one_scale() -> None:
    evaluation: Any = object.__new__(TargetEvaluation)
    evaluation.model = SimpleNamespace(labels=Labels.of_value("speed", TargetScale(mean=0.0, std=4.0)))
    champion: Any = SimpleNamespace(shown_from=())
    found = predicted(SPEED, np.array([1.0, 5.0]), np.array([[1.0], [2.0]]))  # it says 3 and 5, on a scale of 2
    assert loss(found) == pytest.approx(2**2 / 2 / 2**2)
    assert evaluation._value(champion, found, "loss") == pytest.approx(2**2 / 2 / 4**2)
    assert evaluation._value(champion, found, "mae") == pytest.approx(1.0)
