"""What is minimised where a clip's label is not one class: several classes, a class of each head, or a number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ivcp.records import Labels
from ivcp.records.problem_types import TargetScale
from ivcp.settings import LossConfig
from ivcp.stages.action_cls.losses import ClassificationLoss

Loss = Callable[[Tensor, Tensor], Tensor]


def plain_loss(labels: Labels) -> Loss:
    """What evaluation takes: the loss without any of the settings that training may have."""
    match labels.kind:
        case "classes":
            return MultiLabelLoss()
        case "heads":
            return HeadsLoss(labels, [ClassificationLoss() for _ in labels.heads])
        case "value":
            return ValueLoss(labels.scale)
        case _:
            return functional.cross_entropy


def training_loss(labels: Labels, loss: LossConfig, *, label_counts: Sequence[int]) -> Loss:
    """The loss that the settings ask for; `label_counts` holds the training clips of each class."""
    match labels.kind:
        case "classes":
            gamma = loss.focal_gamma if loss.action_loss == "focal" else 0.0
            return MultiLabelLoss(focal_gamma=gamma, label_smoothing=loss.label_smoothing_factor)
        case "heads":
            counts = [label_counts[outputs] for outputs in labels.outputs_of_heads]
            return HeadsLoss(labels, [ClassificationLoss.from_settings(loss, label_counts=each) for each in counts])
        case "value":
            return ValueLoss(labels.scale, kind=loss.regression_loss)
        case _:
            return ClassificationLoss.from_settings(loss, label_counts=label_counts)


class MultiLabelLoss(nn.Module):
    """Binary cross-entropy of each class, on average over classes and clips: -(1 - p)^gamma · log p, with p the
    probability of what is true of a class (gamma = 0, or that of the focal loss). Smoothed labels lie between."""

    def __init__(self, *, focal_gamma: float = 0.0, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.focal_gamma, self.label_smoothing = focal_gamma, label_smoothing

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """`logits` and `labels`, of 0 and 1, are (batch, num_classes)."""
        targets = labels.to(logits.dtype) * (1 - self.label_smoothing) + self.label_smoothing / 2
        terms = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        if self.focal_gamma:
            wrong = torch.sigmoid(torch.where(labels > 0, -logits, logits))
            terms = terms * wrong.clamp(min=1e-6) ** self.focal_gamma  # not 0: see ClassificationLoss
        return terms.mean()


class HeadsLoss(nn.Module):
    """The mean of the heads' losses, each of which is that of one class."""

    def __init__(self, labels: Labels, losses: Sequence[ClassificationLoss]) -> None:
        super().__init__()
        self.losses = nn.ModuleList(losses)
        self._outputs = labels.outputs_of_heads

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """`logits` is (batch, classes of all heads), `labels` (batch, heads)."""
        found = [
            loss(logits[:, outputs], labels[:, number])
            for number, (loss, outputs) in enumerate(zip(self.losses, self._outputs, strict=True))
        ]
        return torch.stack(found).mean()


class ValueLoss(nn.Module):
    """The mean error of numbers that the training clips' mean and standard deviation were taken out of."""

    def __init__(self, scale: TargetScale | None, *, kind: Literal["mse", "l1", "smooth_l1"] = "mse") -> None:
        super().__init__()
        if scale is None:
            raise ValueError("a number is learned by the mean and the spread of the training clips, and has none")
        self.scale = scale
        self._error = {"mse": functional.mse_loss, "l1": functional.l1_loss, "smooth_l1": functional.smooth_l1_loss}[
            kind
        ]

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """`logits` is (batch, 1), of the scaled numbers; `labels` are the numbers, (batch,)."""
        targets = (labels.double() - self.scale.mean) / self.scale.std
        return self._error(logits[:, 0], targets.to(logits.dtype))
