"""Learning from pairs of answers: dpo and its relatives."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ivcp.distributed.processes import summed_over_processes
from ivcp.stages.language.log_probs import PairLogProbs

PreferenceKind = Literal["sigmoid", "hinge", "ipo", "kto_pair", "orpo", "simpo"]
WITHOUT_REFERENCE = frozenset({"orpo", "simpo"})
"""Kinds that compare with no reference model."""


@dataclass
class RunningMean:
    """The mean of what was added so far; 0 before."""

    value: float = 0.0
    count: int = 0

    def add(self, value: float) -> None:
        """One more."""
        self.count += 1
        self.value += (value - self.value) / self.count


@dataclass
class PreferenceLoss:
    """The loss of each pair. `beta` says how far the model may leave the reference: small is far.

    - `sigmoid`: Rafailov et al., "Direct Preference Optimization", arXiv:2305.18290; with `label_smoothing` the
      conservative form for pairs of which that share is the wrong way round (Mitchell, 2023).
    - `hinge`: Zhao et al., "SLiC-HF", arXiv:2305.10425, of the same log-ratios.
    - `ipo`: Azar et al., "A General Theoretical Paradigm", arXiv:2310.12036, of means over tokens, as in its results.
    - `kto_pair`: Ethayarajh et al., "KTO", arXiv:2402.01306, where each answer's reference point is the KL divergence
      estimated from the other answers of the batch.
    - `orpo`: Hong et al., "ORPO", arXiv:2403.07691: the answer's own loss, and `beta` times that of the odds ratio.
    - `simpo`: Meng et al., "SimPO", arXiv:2405.14734, with the margin `simpo_gamma`.

    `bco_weight` adds Jung et al., "Binary Classifier Optimization", arXiv:2404.04656, and divides by 1 + it; `ftx`
    adds so much of the chosen answer's mean loss, but for orpo, which has it. Both as LLaMA-Factory has them.
    """

    kind: PreferenceKind = "sigmoid"
    beta: float = 0.1
    label_smoothing: float = 0.0
    simpo_gamma: float = 0.5
    ftx: float = 0.0
    bco_weight: float = 0.0
    mean_reward: RunningMean = field(default_factory=RunningMean)
    """Of all answers of all batches so far, which `bco_weight` compares with."""

    def __call__(self, policy: PairLogProbs, reference: PairLogProbs | None, *, updates: bool = True) -> Tensor:
        """(pairs,). `reference` is not asked for by the kinds of `WITHOUT_REFERENCE`, and has no gradient.

        `updates` says that rewards of this batch count for the mean that `bco_weight` compares with, as in training.
        """
        if self.kind == "orpo":
            return self._odds_ratio(policy)
        if self.kind == "simpo":
            margins = self.beta * (policy.chosen.mean - policy.rejected.mean) - self.simpo_gamma
            losses = -logsigmoid(margins)
        else:
            assert reference is not None
            losses = self._against(policy, reference)
            if self.bco_weight:
                losses = (losses + self.bco_weight * self._classified(policy, reference, updates=updates)) / (
                    1 + self.bco_weight
                )
        return losses - self.ftx * policy.chosen.mean if self.ftx else losses

    def rewards(self, policy: PairLogProbs, reference: PairLogProbs | None) -> tuple[Tensor, Tensor]:
        """What the model itself would give the chosen and the rejected answers, (pairs,) each, without gradient."""
        if self.kind in WITHOUT_REFERENCE or reference is None:
            return self.beta * policy.chosen.mean.detach(), self.beta * policy.rejected.mean.detach()
        chosen, rejected = _log_ratios(policy, reference)
        return self.beta * chosen.detach(), self.beta * rejected.detach()

    def _against(self, policy: PairLogProbs, reference: PairLogProbs) -> Tensor:
        chosen, rejected = _log_ratios(policy, reference)
        match self.kind:
            case "hinge":
                return torch.relu(1 - self.beta * (chosen - rejected))
            case "ipo":
                gap = chosen / policy.chosen.num_tokens - rejected / policy.rejected.num_tokens
                return (gap - 1 / (2 * self.beta)) ** 2
            case "kto_pair":
                chosen_kl, rejected_kl = (each.detach().mean().clamp(min=0) for each in (chosen, rejected))
                desirable = 1 - torch.sigmoid(self.beta * (chosen - rejected_kl))
                undesirable = 1 - torch.sigmoid(self.beta * (chosen_kl - rejected))
                return (desirable + undesirable) / 2
        margins = self.beta * (chosen - rejected)
        return -(1 - self.label_smoothing) * logsigmoid(margins) - self.label_smoothing * logsigmoid(-margins)

    def _odds_ratio(self, policy: PairLogProbs) -> Tensor:
        chosen, rejected = policy.chosen.mean, policy.rejected.mean
        log_odds = (chosen - rejected) - (_log_one_minus_exp(chosen) - _log_one_minus_exp(rejected))
        return -chosen - self.beta * logsigmoid(log_odds)

    def _classified(self, policy: PairLogProbs, reference: PairLogProbs, *, updates: bool) -> Tensor:
        """Chosen answers above, rejected ones below the mean reward of all batches so far, of all processes."""
        chosen, rejected = (self.beta * ratios for ratios in _log_ratios(policy, reference))
        if updates:
            rewards = torch.cat((chosen, rejected)).detach().float()
            total, number = summed_over_processes(torch.stack((rewards.sum(), rewards.new_tensor(len(rewards)))))
            self.mean_reward.add(float(total / number))
        mean = self.mean_reward.value
        return -logsigmoid(chosen - mean) - logsigmoid(mean - rejected)


def _log_ratios(policy: PairLogProbs, reference: PairLogProbs) -> tuple[Tensor, Tensor]:
    return policy.chosen.total - reference.chosen.total, policy.rejected.total - reference.rejected.total


def _log_one_minus_exp(values: Tensor) -> Tensor:
    """log(1 - exp(x)) of x < 0, exact near both ends (Mächler, "Accurately Computing log(1 - exp(-|a|))", 2012)."""
    values = values.clamp(max=-1e-7)  # a certain answer: its odds are infinite
    near_zero = values > -math.log(2)
    return torch.where(
        near_zero,
        torch.log(-torch.expm1(torch.where(near_zero, values, -1.0))),
        torch.log1p(-torch.exp(torch.where(near_zero, -1.0, values))),
    )
