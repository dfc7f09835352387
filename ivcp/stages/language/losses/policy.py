"""Learning from rewards of answers that the model has written itself: ppo and grpo."""

from __future__ import annotations

import torch
from torch import Tensor


def group_advantages(rewards: Tensor, *, group_size: int, scales: bool = True, floor: float = 1e-4) -> Tensor:
    """How much better each answer is than the others to its prompt, (answers,).

    `rewards` are (answers,), those of one prompt next to each other. `scales` divides by the group's standard
    deviation (Shao et al., "DeepSeekMath", arXiv:2402.03300); without, hard and easy prompts count alike (Liu et al.,
    "Understanding R1-Zero-Like Training", arXiv:2503.20783). `floor` is added to the deviation: equal rewards teach
    nothing.
    """
    groups = rewards.view(-1, group_size)
    advantages = groups - groups.mean(dim=1, keepdim=True)
    if scales:
        advantages = advantages / (groups.std(dim=1, keepdim=True) + floor)
    return advantages.reshape(-1)


def clipped_policy_loss(log_ratios: Tensor, advantages: Tensor, *, low: float = 0.2, high: float = 0.2) -> Tensor:
    """Of each token: -min(r · A, clip(r, 1 - low, 1 + high) · A), with r = exp(log_ratios).

    Schulman et al., "Proximal Policy Optimization Algorithms", arXiv:1707.06347. `log_ratios` are those of the model to
    the one that wrote the answer; `advantages` have their shape, or one that broadcasts to it.
    """
    ratios = log_ratios.exp()
    return -torch.min(ratios * advantages, ratios.clamp(1 - low, 1 + high) * advantages)


def kl_penalty(policy: Tensor, reference: Tensor) -> Tensor:
    """Of each token, never below 0: exp(d) - d - 1, with d = reference - policy, of log-probabilities.

    The third estimator of Schulman, "Approximating KL Divergence" (2020), without bias and of low variance.
    """
    difference = reference - policy
    return difference.exp() - difference - 1


def grpo_loss(
    policy: Tensor,
    old: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    reference: Tensor | None = None,
    beta: float = 0.0,
    low: float = 0.2,
    high: float = 0.2,
) -> Tensor:
    """Mean over the answers of the mean over their tokens (Shao et al., arXiv:2402.03300, equation 3).

    The penalty is weighted by the ratio to the old model, without which its gradient is biased ("DeepSeek-V3.2",
    arXiv:2512.02556).

    Args:
        policy: log-probabilities of the answers' tokens, (answers, tokens).
        old: the same of the model that wrote them, without gradient.
        advantages: (answers,).
        mask: which tokens are the answer's, (answers, tokens).
        reference: log-probabilities by the reference model; null where `beta` is 0.
        beta: weight of the penalty for leaving it.
        low: how far the probability of a token may fall by this batch.
        high: how far it may rise.
    """
    losses = clipped_policy_loss(policy - old, advantages.unsqueeze(1), low=low, high=high)
    if beta:
        assert reference is not None
        losses = losses + beta * (policy - old).exp() * kl_penalty(policy, reference)
    return ((losses * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)).mean()


def token_rewards(scores: Tensor, policy: Tensor, reference: Tensor, mask: Tensor, *, kl_coef: float) -> Tensor:
    """What each token earns, (answers, tokens): its share of the KL penalty, and the last one the answer's score.

    Ziegler et al., "Fine-Tuning Language Models from Human Preferences", arXiv:1909.08593. `scores` are (answers,).
    """
    rewards = -kl_coef * (policy - reference) * mask
    last = mask.long().cumsum(dim=1).argmax(dim=1)
    return rewards.scatter_add(1, last.unsqueeze(1), scores.to(rewards.dtype).unsqueeze(1))


def generalized_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float = 1.0, lam: float = 0.95
) -> tuple[Tensor, Tensor]:
    """The advantage of each token, and the return that its value should have been, (answers, tokens) each.

    Schulman et al., "High-Dimensional Continuous Control Using Generalized Advantage Estimation", arXiv:1506.02438.
    All are (answers, tokens), with an answer's tokens next to each other; 0 beyond them.
    """
    values, advantages = values * mask, torch.zeros_like(rewards)
    following = torch.zeros_like(rewards[:, 0])
    for place in reversed(range(rewards.shape[1])):
        next_value = values[:, place + 1] if place + 1 < rewards.shape[1] else torch.zeros_like(following)
        delta = rewards[:, place] + gamma * next_value - values[:, place]
        following = (delta + gamma * lam * following) * mask[:, place]
        advantages[:, place] = following
    return advantages, advantages + values


def value_loss(values: Tensor, old: Tensor, returns: Tensor, mask: Tensor, *, clip: float = 0.2) -> Tensor:
    """Half the mean square error of the answer's values, where they have moved no further than `clip`.

    As OpenAI's implementation of PPO, arXiv:1707.06347, clips it. All are (answers, tokens).
    """
    clipped = torch.clamp(values, old - clip, old + clip)
    errors = torch.max((values - returns) ** 2, (clipped - returns) ** 2)
    return 0.5 * (errors * mask).sum() / mask.sum().clamp(min=1)


def whitened(values: Tensor, mask: Tensor, *, keeps_mean: bool = False) -> Tensor:
    """Values with standard deviation 1 over the answers' tokens, and mean 0 unless it is kept; (answers, tokens)."""
    count = mask.sum().clamp(min=1)
    mean = (values * mask).sum() / count
    variance = ((values - mean) ** 2 * mask).sum() / count
    scaled = (values - mean) * torch.rsqrt(variance + 1e-8)
    return (scaled + mean if keeps_mean else scaled) * mask
