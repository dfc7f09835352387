"""Learning from single answers that are good or bad."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ivcp.stages.language.log_probs import AnswerLogProbs


def kl_of_mismatched(
    policy: AnswerLogProbs, reference: AnswerLogProbs, *, summed: Callable[[Tensor], Tensor] = lambda sums: sums
) -> Tensor:
    """How far the model is from the reference, one number without gradient, of answers to other prompts; not below 0.

    Ethayarajh et al., "KTO", arXiv:2402.01306, section 4.1. `summed` adds up what several processes have; without any
    answer it is 0.
    """
    ratios = (policy.total - reference.total).detach()
    total, count = summed(torch.stack((ratios.sum(), ratios.new_tensor(len(ratios)))))
    kl: Tensor = total / count.clamp(min=1)
    return kl.clamp(min=0)


def kto_loss(
    policy: AnswerLogProbs,
    reference: AnswerLogProbs,
    is_desirable: Tensor,
    *,
    kl: Tensor,
    beta: float = 0.1,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """Of each answer, (answers,): 1 - σ(β · (ratio - kl)) where it is desirable, 1 - σ(β · (kl - ratio)) where not.

    Equation 8 of Ethayarajh et al., "KTO: Model Alignment as Prospect Theoretic Optimization", arXiv:2402.01306.
    `is_desirable` is (answers,), boolean; `kl` is that of `kl_of_mismatched`, of all processes.
    """
    gains = policy.total - reference.total - kl
    signed = torch.where(is_desirable, gains, -gains)
    weights = torch.where(is_desirable, desirable_weight, undesirable_weight)
    return weights * (1 - torch.sigmoid(beta * signed))
