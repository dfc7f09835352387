"""Modules that learn from rewards of answers that they write themselves: `grpo` and `ppo`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ivcp.inference.generation import Writer
from ivcp.models.backbone import language_model_of, last_hidden_states
from ivcp.models.processor import NO_LABEL
from ivcp.settings import RunConfig
from ivcp.stages.language.answers import ComparingModule
from ivcp.stages.language.losses.policy import (
    clipped_policy_loss,
    generalized_advantages,
    group_advantages,
    grpo_loss,
    kl_penalty,
    token_rewards,
    value_loss,
    whitened,
)
from ivcp.stages.language.module import LanguageOutput
from ivcp.stages.language.rewards import Reward, wanted_texts
from ivcp.stages.language.rollouts import Rollouts, in_rounds

_ROWS = ("input_ids", "attention_mask", "token_labels")


class PolicyModule(ComparingModule, ABC):
    """Writes answers to the prompts of each batch, has them rewarded, and learns from that."""

    def __init__(self, backbone: Any, config: RunConfig, *, writer: Writer, reward: Reward) -> None:
        """`writer` lets `backbone` write while it trains; validation takes the likeliest answers."""
        super().__init__(backbone, config)
        self._writer, self._reward = writer, reward
        self._greedy = Writer(
            backbone, writer.processor, writer.settings.model_copy(update={"do_sample": False, "num_beams": 1})
        )

    @property
    def per_prompt(self) -> int:
        """Answers that are written to each prompt of a training batch."""
        return 1

    def forward(self, answer_ids: Tensor, batch_key: Tensor | None = None, **prompts: Any) -> LanguageOutput:
        """The loss of answers to a batch of prompts, which `left_padded` has made.

        `answer_ids`, (batch, longest), are the rows' own answers, `NO_LABEL` behind them. In validation the loss is
        the negative mean reward of the likeliest answers, and `logits` are their rewards, (batch, 1). Batches are told
        apart by `batch_key`, (1,).
        """
        prompts.pop("num_learned", None)
        if self.training:
            return LanguageOutput(loss=self.loss_of(prompts, answer_ids, batch_key))
        rewards = self._reward(self.written(self._greedy, prompts, answer_ids))
        return LanguageOutput(loss=-rewards.mean(), logits=rewards.unsqueeze(1))

    @abstractmethod
    def loss_of(self, prompts: Mapping[str, Any], answer_ids: Tensor, batch_key: Tensor | None) -> Tensor:
        """The loss of a training batch, a scalar."""

    @torch.no_grad()
    def written(
        self, writer: Writer, prompts: Mapping[str, Any], answer_ids: Tensor, *, per_prompt: int = 1
    ) -> Rollouts:
        """Answers to prompts, which see the media that the forward passes over them see."""
        with _evaluating(self.backbone):
            answers = in_rounds(writer.write_batch(prompts, per_prompt=per_prompt), per_prompt)
        wanted = wanted_texts(writer.processor, [row[row != NO_LABEL].tolist() for row in answer_ids])
        return Rollouts(
            prompts=prompts,
            answers=answers,
            texts=tuple(writer.text(answer.tokens).strip() for answer in answers),
            wanted=tuple(wanted * per_prompt),
            shares_media=self.shares_media,
        )

    def _states(self, rows: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Any], dict[str, Any]]:
        """Hidden states of the rows of rollouts, with their media as they are, and as this model has seen them."""
        vision = {name: value for name, value in rows.items() if name not in _ROWS}
        shared = self.with_features(self.backbone, vision, times=self.per_prompt)
        states = last_hidden_states(self.backbone, rows["input_ids"], rows["attention_mask"], **shared)
        return states, vision, shared

    def _report(self, rollouts: Rollouts, rewards: Tensor, **others: Tensor) -> None:
        lengths = [float(len(answer.tokens)) for answer in rollouts.answers]
        cut = [float(answer.is_cut) for answer in rollouts.answers]
        self.numbers = {
            "reward": rewards,
            "answer_tokens": rewards.new_tensor(lengths),
            "answers_cut": rewards.new_tensor(cut),
            **{name: values.detach() for name, values in others.items()},
        }


class GroupModule(PolicyModule):
    """Group relative policy optimization: each answer is compared with the others to its prompt (arXiv:2402.03300).

    Each batch of answers is learned from once: a ratio to the model that wrote them is 1, with its gradient.
    """

    @property
    def needs_reference(self) -> bool:
        """For the penalty only."""
        return self.run_config is not None and self.run_config.language.grpo_beta > 0

    @property
    def per_prompt(self) -> int:
        """The size of a group."""
        assert self.run_config is not None
        return self.run_config.language.num_generations

    def loss_of(self, prompts: Mapping[str, Any], answer_ids: Tensor, batch_key: Tensor | None) -> Tensor:
        """The loss of a training batch, a scalar."""
        assert self.run_config is not None
        settings = self.run_config.language
        rollouts = self.written(self._writer, prompts, answer_ids, per_prompt=self.per_prompt)
        with torch.no_grad():
            rewards = self._reward(rollouts)
        rows = rollouts.rows()
        states, vision, shared = self._states(rows)
        policy = self._log_probs(self.backbone, states, rows["token_labels"])
        inputs = {name: rows[name] for name in _ROWS}
        reference = self.reference_log_probs(inputs, vision, shared, times=self.per_prompt)
        groups = rewards.view(self.per_prompt, -1).t().reshape(-1)
        advantages = group_advantages(groups, group_size=self.per_prompt, scales=settings.scale_rewards)
        advantages = advantages.view(-1, self.per_prompt).t().reshape(-1)
        mask = rows["token_labels"][:, 1:] != NO_LABEL
        kl = {} if reference is None else {"kl": (kl_penalty(policy, reference) * mask).sum(1) / mask.sum(1)}
        self._report(rollouts, rewards, reward_std=groups.view(-1, self.per_prompt).std(dim=1), **kl)
        return grpo_loss(
            policy,
            policy.detach(),
            advantages,
            mask,
            reference=reference,
            beta=settings.grpo_beta,
            low=settings.cliprange,
            high=settings.cliprange,
        )


@dataclass(frozen=True)
class _Experience:
    """What was found out when answers were written: all (answers, tokens - 1), without gradients."""

    rows: Mapping[str, Tensor]
    log_probs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor


class ProximalModule(PolicyModule):
    """Proximal policy optimization with a value head on the model's own states (arXiv:1707.06347, arXiv:1909.08593)."""

    def __init__(self, backbone: Any, config: RunConfig, *, writer: Writer, reward: Reward) -> None:
        super().__init__(backbone, config, writer=writer, reward=reward)
        width = language_model_of(backbone).config.get_text_config().hidden_size
        self.value_head = nn.Linear(width, 1)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)
        self._experiences: dict[int, tuple[_Experience, int]] = {}

    def loss_of(self, prompts: Mapping[str, Any], answer_ids: Tensor, batch_key: Tensor | None) -> Tensor:
        """The loss of a training batch, a scalar; answers are written when a batch comes for the first time."""
        assert self.run_config is not None
        settings, key = self.run_config.language, 0 if batch_key is None else int(batch_key)
        seen, uses = self._experiences.pop(key, (None, settings.ppo_epochs))
        if seen is None:
            seen = self._experience(prompts, answer_ids)
            self._forget_old_ones()
        if uses > 1:
            self._experiences[key] = seen, uses - 1
        states, _, _ = self._states(seen.rows)
        labels = seen.rows["token_labels"]
        mask = labels[:, 1:] != NO_LABEL
        policy, values = self._log_probs(self.backbone, states, labels), self._values(states)
        losses = clipped_policy_loss(
            policy - seen.log_probs, seen.advantages, low=settings.cliprange, high=settings.cliprange
        )
        of_policy = (losses * mask).sum() / mask.sum().clamp(min=1)
        of_values = value_loss(values, seen.values, seen.returns, mask, clip=settings.cliprange_value)
        self.numbers = self.numbers | {"value_loss": of_values.detach().unsqueeze(0)}
        return of_policy + settings.vf_coef * of_values

    @torch.no_grad()
    def _experience(self, prompts: Mapping[str, Any], answer_ids: Tensor) -> _Experience:
        assert self.run_config is not None
        settings = self.run_config.language
        rollouts = self.written(self._writer, prompts, answer_ids)
        scores = self._reward(rollouts)
        rows = rollouts.rows()
        labels = rows["token_labels"]
        mask = labels[:, 1:] != NO_LABEL
        with _evaluating(self.backbone):
            states, vision, shared = self._states(rows)
            old, values = self._log_probs(self.backbone, states, labels), self._values(states)
        reference = self.reference_log_probs({name: rows[name] for name in _ROWS}, vision, shared, times=1)
        assert reference is not None, "ppo has a reference"
        rewards = token_rewards(scores, old, reference, mask, kl_coef=settings.kl_coef)
        if settings.ppo_whiten_rewards:
            rewards = whitened(rewards, mask, keeps_mean=True)
        advantages, returns = generalized_advantages(rewards, values, mask, gamma=settings.gamma, lam=settings.lam)
        self._report(rollouts, scores, kl=((old - reference) * mask).sum(dim=1))
        return _Experience(rows, old, values, whitened(advantages, mask), returns)

    def _values(self, states: Tensor) -> Tensor:
        """What the answer is expected to earn from each token on, (answers, tokens - 1), float32."""
        found: Tensor = self.value_head(states[:, :-1].to(self.value_head.weight.dtype)).squeeze(-1).float()
        return found

    def _forget_old_ones(self) -> None:
        """Those of batches that do not come again: a run that went on in the middle of their updates has some."""
        assert self.run_config is not None
        while len(self._experiences) >= self.run_config.train.gradient_accumulation_steps:
            self._experiences.pop(next(iter(self._experiences)))


@contextmanager
def _evaluating(backbone: Any) -> Iterator[None]:
    """Inside, without dropout and with a cache of what was computed, as a model writes."""
    trains = backbone.training
    backbone.eval()
    try:
        yield
    finally:
        backbone.train(trains)
