"""Figures of several classes, heads and numbers against what scikit-learn and SciPy, or plain arithmetic, say."""

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import pearsonr, rankdata
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    mean_absolute_error,
    mean_squared_error,
    multilabel_confusion_matrix,
    r2_score,
)

from ivcp.inference.target_scores import average_precisions, losses_of, multi_label_scores, scores_of, value_scores
from ivcp.records import Labels
from ivcp.records.problem_types import Head, TargetScale

CLASSES = Labels(problem_type="multi_label_classification", label_names=tuple("abcdef"))
HEADS = Labels.of_heads(
    (Head(name="verb", label_names=("cut", "mix", "pour")), Head(name="noun", label_names=("x", "y")))
)
SPEED = Labels.of_value("speed", TargetScale(mean=2.0, std=0.5))


@pytest.mark.parametrize("seed", range(4))
def test_several_classes_are_counted_as_scikit_learn_does(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits, truth = rng.normal(size=(60, 6)).round(1), rng.random((60, 6)) < 0.3  # rounded: there are ties
    truth[:, 2] = False  # a class without a clip
    logits[:, 3] = 0.5  # all equal
    numbers, present = scores_of(logits, truth.astype(int), CLASSES), [0, 1, 3, 4, 5]
    shown = expit(logits) >= 0.5
    assert numbers["mean_average_precision"] == pytest.approx(
        average_precision_score(truth[:, present], logits[:, present], average="macro")
    )
    assert numbers["f1_macro"] == pytest.approx(
        np.mean([f1_score(truth[:, c], shown[:, c], zero_division=0) for c in present])
    )
    wrong = multilabel_confusion_matrix(truth, shown).sum(axis=0)
    (_, fp), (fn, tp) = wrong.tolist()
    assert numbers["f1_micro"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
    assert numbers["exact_match"] == pytest.approx(accuracy_score(truth, shown))
    assert average_precisions(expit(logits), truth)[3] == pytest.approx(truth[:, 3].mean())


def test_without_any_class_there_is_no_figure() -> None:
    assert multi_label_scores(np.full((4, 2), 0.7), np.zeros((4, 2), dtype=bool), np.full(2, 0.5)) == {}


def test_heads_are_counted_alone_and_together() -> None:
    rng = np.random.default_rng(0)
    outputs, truth = rng.normal(size=(50, 5)), np.stack([rng.integers(0, 3, 50), rng.integers(0, 2, 50)], axis=1)
    verbs, nouns = outputs[:, :3].argmax(axis=1), outputs[:, 3:].argmax(axis=1)
    numbers = scores_of(outputs, truth, HEADS)
    assert numbers["joint_accuracy"] == np.mean((verbs == truth[:, 0]) & (nouns == truth[:, 1]))
    assert numbers["verb_top1_accuracy"] == accuracy_score(truth[:, 0], verbs)
    assert numbers["noun_mean_class_accuracy"] == pytest.approx(balanced_accuracy_score(truth[:, 1], nouns))


def test_numbers_are_those_of_their_unit() -> None:
    rng = np.random.default_rng(0)
    truth, outputs = rng.normal(2, 1, 40), rng.normal(size=(40, 1))
    values = 2.0 + 0.5 * outputs[:, 0]
    numbers = scores_of(outputs, truth, SPEED)
    assert numbers["mae"] == pytest.approx(mean_absolute_error(truth, values))
    assert numbers["rmse"] == pytest.approx(mean_squared_error(truth, values) ** 0.5)
    assert numbers["r2"] == pytest.approx(r2_score(truth, values))
    assert numbers["spearman"] == pytest.approx(pearsonr(rankdata(truth), rankdata(values)).statistic)


def test_figures_of_equal_numbers_are_left_out() -> None:
    assert set(value_scores(np.array([1.0, 2.0]), np.array([3.0, 3.0]))) == {"mae", "rmse"}
    assert set(value_scores(np.array([1.0, 1.0]), np.array([2.0, 3.0]))) == {"mae", "rmse", "r2"}
    assert value_scores(np.zeros(0), np.zeros(0)) == {}
    while_training = scores_of(np.zeros((2, 1)), np.array([2.0, 3.0]), SPEED)
    assert while_training["spearman"] == 0.0  # it may choose the checkpoint, and is looked for after each validation
    assert while_training["r2"] == value_scores(np.array([2.0, 2.0]), np.array([2.0, 3.0]))["r2"]


@pytest.mark.parametrize(
    ("labels", "targets"),
    [
        (CLASSES, np.random.default_rng(1).integers(0, 2, (7, 6))),
        (HEADS, np.random.default_rng(1).integers(0, 2, (7, 2))),
        (SPEED, np.random.default_rng(1).normal(2, 1, 7)),
    ],
)
def test_losses_are_those_of_validation(labels: Labels, targets: np.ndarray) -> None:
    torch = pytest.importorskip("torch")
    from ivcp.stages.action_cls.target_losses import plain_loss

    outputs = np.random.default_rng(2).normal(size=(7, labels.num_classes))
    as_float = labels.kind != "heads"
    expected = plain_loss(labels)(
        torch.tensor(outputs), torch.tensor(targets, dtype=None if not as_float else torch.float64)
    )
    assert losses_of(outputs, targets, labels).mean() == pytest.approx(float(expected))
