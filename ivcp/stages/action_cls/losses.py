"""The classification loss: label smoothing, class weights, focal loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ivcp.settings import LossConfig


class ClassificationLoss(nn.Module):
    """Mean over the clips of -Σ_c t_c · w_c · (1 - p_c)^gamma · log p_c, with t the (smoothed) label of a clip.

    gamma = 0 is cross-entropy; above, the focal loss of Lin et al., "Focal Loss for Dense Object Detection",
    arXiv:1708.02002. The mean divides by the number of clips, not by the sum of their weights, so that accumulated
    and distributed batches add up to the large one.
    """

    class_weights: Tensor | None

    def __init__(
        self, *, class_weights: Tensor | None = None, focal_gamma: float = 0.0, label_smoothing: float = 0.0
    ) -> None:
        """`class_weights` is (num_classes,)."""
        super().__init__()
        self.focal_gamma = focal_gamma
        self.label_smoothing = label_smoothing
        self.register_buffer("class_weights", class_weights, persistent=False)

    @classmethod
    def from_settings(cls, loss: LossConfig, *, label_counts: Sequence[int]) -> ClassificationLoss:
        """The loss that the settings ask for; `label_counts` holds the training clips of each class."""
        return cls(
            class_weights=class_weights(loss, label_counts),
            focal_gamma=loss.focal_gamma if loss.action_loss == "focal" else 0.0,
            label_smoothing=loss.label_smoothing_factor,
        )

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """`logits` is (batch, num_classes); `labels` holds ids, (batch,), or probabilities, (batch, num_classes)."""
        num_classes = logits.shape[1]
        targets = labels if labels.dim() == 2 else functional.one_hot(labels, num_classes)
        targets = targets.to(logits.dtype) * (1 - self.label_smoothing) + self.label_smoothing / num_classes
        log_shares = functional.log_softmax(logits, dim=1)
        terms = targets * log_shares
        if self.focal_gamma:
            # Not 0: the power's gradient is infinite there for gamma below 1.
            terms = terms * (1 - log_shares.exp()).clamp(min=1e-6) ** self.focal_gamma
        if self.class_weights is not None:
            terms = terms * self.class_weights
        return -terms.sum(dim=1).mean()


def class_weights(loss: LossConfig, label_counts: Sequence[int]) -> Tensor | None:
    """A weight for each class, (num_classes,), whose mean over the training clips is 1; null for no weights.

    `inverse` is 1 / n for n clips; `effective_number` is (1 - β) / (1 - β^n) (Cui et al., "Class-Balanced Loss Based
    on Effective Number of Samples", arXiv:1901.05555). A class without clips counts as if it had one.
    """
    if loss.class_weights == "none":
        return None
    counts = torch.tensor(label_counts, dtype=torch.float64).clamp(min=1)
    if loss.class_weights == "inverse":
        weights = 1 / counts
    else:
        weights = (1 - loss.class_weight_beta) / (1 - loss.class_weight_beta**counts)
    return (weights * counts.sum() / (weights * counts).sum()).float()
