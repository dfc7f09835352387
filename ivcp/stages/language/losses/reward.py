"""Learning to score answers."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid


def reward_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Of each pair, (pairs,), of the scores of both answers: -log σ(chosen - rejected).

    The Bradley-Terry model, as in Ouyang et al., "Training Language Models to Follow Instructions with Human Feedback",
    arXiv:2203.02155.
    """
    return -logsigmoid(chosen - rejected)
