import pytest
import torch
from torch.nn import functional

from ivcp.settings import LossConfig
from ivcp.stages.action_cls.losses import ClassificationLoss, class_weights

LOGITS = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 3, 0, 1])


def test_plain_and_smoothed_loss_are_cross_entropy():
    for smoothing in (0.0, 0.1):
        expected = functional.cross_entropy(LOGITS, LABELS, label_smoothing=smoothing)
        torch.testing.assert_close(ClassificationLoss(label_smoothing=smoothing)(LOGITS, LABELS), expected)


def test_probabilities_as_labels():
    shares = torch.softmax(LOGITS.flip(0), dim=1)

    torch.testing.assert_close(ClassificationLoss()(LOGITS, shares), functional.cross_entropy(LOGITS, shares))


def test_focal_loss_is_the_papers():
    p = LOGITS.softmax(dim=1).gather(1, LABELS.unsqueeze(1)).squeeze(1)
    expected = (-((1 - p) ** 2) * p.log()).mean()

    torch.testing.assert_close(ClassificationLoss(focal_gamma=2.0)(LOGITS, LABELS), expected)
    torch.testing.assert_close(ClassificationLoss(focal_gamma=0.0)(LOGITS, LABELS), -p.log().mean())


def test_focal_loss_has_a_gradient_where_a_clip_is_certain():
    logits = torch.tensor([[200.0, 0.0]], requires_grad=True)
    ClassificationLoss(focal_gamma=0.5)(logits, torch.tensor([0])).backward()

    assert logits.grad.isfinite().all()


def test_inverse_weights_give_every_class_the_same_say():
    counts = [90, 9, 1]
    weights = class_weights(LossConfig(class_weights="inverse"), counts)

    assert (weights * torch.tensor(counts)).tolist() == pytest.approx([100 / 3] * 3)


def test_effective_numbers_lie_between_no_weights_and_inverse_ones():
    counts = [900, 90, 10]
    weights = class_weights(LossConfig(class_weights="effective_number", class_weight_beta=0.99), counts)
    by_hand = [(1 - 0.99) / (1 - 0.99**n) for n in counts]

    assert (weights / weights[0]).tolist() == pytest.approx([value / by_hand[0] for value in by_hand], rel=1e-5)
    assert float((weights * torch.tensor(counts)).sum() / sum(counts)) == pytest.approx(1.0)
    assert class_weights(LossConfig(), counts) is None


def test_a_class_without_clips_has_a_finite_weight():
    assert class_weights(LossConfig(class_weights="inverse"), [4, 0]).isfinite().all()


def test_weights_change_what_is_minimised():
    loss = ClassificationLoss(class_weights=torch.tensor([2.0, 1.0, 1.0, 0.0]))
    each = functional.cross_entropy(LOGITS, LABELS, reduction="none") * torch.tensor([2.0, 1, 1, 0, 2, 1])

    torch.testing.assert_close(loss(LOGITS, LABELS), each.mean())


def test_halves_of_a_batch_add_up_to_the_whole():
    loss = ClassificationLoss(class_weights=torch.tensor([5.0, 1.0, 0.5, 0.1]), focal_gamma=1.5)
    halves = (loss(LOGITS[:3], LABELS[:3]) + loss(LOGITS[3:], LABELS[3:])) / 2

    torch.testing.assert_close(loss(LOGITS, LABELS), halves)
