"""Modules that compare answers: with each other, and with what a reference model thinks of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ivcp.distributed.processes import summed_over_processes
from ivcp.models.backbone import language_model_of
from ivcp.models.shared_prompts import SHARED_PROMPTS, answer_states, row_lengths
from ivcp.models.vision.features import has_pixels
from ivcp.settings import ConfigError, RunConfig
from ivcp.stages.language.log_probs import AnswerLogProbs, PairLogProbs, answer_log_probs, pair_log_probs
from ivcp.stages.language.losses.kto import kl_of_mismatched, kto_loss
from ivcp.stages.language.losses.preference import WITHOUT_REFERENCE, PreferenceLoss
from ivcp.stages.language.losses.reward import reward_loss
from ivcp.stages.language.module import LanguageOutput, WordsModule
from ivcp.stages.language.reference import FrozenModel, Reference, reference_of


class RewardModule(WordsModule):
    """Gives answers a number: a linear layer, the value head, reads the last hidden state of an answer's last token."""

    def __init__(self, backbone: Any) -> None:
        super().__init__(backbone)
        width = language_model_of(backbone).config.get_text_config().hidden_size
        self.value_head = nn.Linear(width, 1, bias=False)  # pairs have no gradient for one, and Adam would let it drift
        # As in Stiennon et al., "Learning to Summarize from Human Feedback", arXiv:2009.01325.
        nn.init.normal_(self.value_head.weight, std=(width + 1) ** -0.5)

    def scores(self, input_ids: Tensor, attention_mask: Tensor, **vision: Any) -> Tensor:
        """Of each row, (batch,), float32: `input_ids` are prompts with their answers, (batch, tokens), right-padded."""
        last = row_lengths(attention_mask, vision) - 1
        states = answer_states(self.backbone, input_ids, attention_mask, **vision)
        read = states[torch.arange(len(last), device=last.device), last]
        found: Tensor = self.value_head(read.to(self.value_head.weight.dtype)).squeeze(-1).float()
        return found

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_labels: Tensor | None = None,
        num_learned: Tensor | None = None,
        **vision: Any,
    ) -> LanguageOutput:
        """Of a batch whose first half are chosen answers and whose second half rejected ones: the loss, and both
        scores, (pairs, 2)."""
        vision = self.with_features(self.backbone, vision, times=2)
        chosen, rejected = self.scores(input_ids, attention_mask, **vision).chunk(2)
        if self.training:
            self.numbers = {"accuracy": (chosen > rejected).float(), "margin": (chosen - rejected).detach()}
        return LanguageOutput(
            loss=reward_loss(chosen, rejected).mean(), logits=torch.stack((chosen, rejected), dim=1).detach()
        )


class ComparingModule(WordsModule):
    """A module that a reference model belongs to while it trains."""

    def __init__(self, backbone: Any, config: RunConfig | None = None) -> None:
        """`config` is null for a model that is not trained any more."""
        super().__init__(backbone)
        self.run_config = config
        self.reference: Reference | None = None
        self._sees_alike = False
        self._gave_up = False

    def keep_start(self) -> None:
        """Takes the reference that the settings ask for.

        Raises:
            ConfigError: it cannot be held here, or is another kind of model.
            FileNotFoundError: `ref_model` does not exist.
        """
        if self.run_config is None or not self.needs_reference:
            return
        self.reference = reference_of(self.run_config, self.backbone)
        self._sees_alike = self.reference.sees_alike(self.backbone)

    @property
    def needs_reference(self) -> bool:
        """Whether the loss compares with one."""
        return True

    def give_up_reference(self) -> None:
        """Called when what it says of all samples of the run is kept: a model of its own leaves the memory."""
        if isinstance(self.reference, FrozenModel):
            self.reference, self._gave_up = None, True

    def reference_totals(
        self, input_ids: Tensor, attention_mask: Tensor, token_labels: Tensor, **others: Any
    ) -> Tensor:
        """What the reference says of both answers of each sample, (samples, 2), of a batch as the loss reads it."""
        vision = {name: value for name, value in others.items() if name not in ("num_learned", "is_desirable")}
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "token_labels": token_labels}
        shared = self.with_features(self.backbone, vision, times=2) if self._sees_alike else vision
        found = self.reference_log_probs(inputs, vision, shared, times=2)
        assert found is not None
        pairs = pair_log_probs(found, token_labels, ld_alpha=self._ld_alpha)
        return torch.stack((pairs.chosen.total, pairs.rejected.total), dim=1)

    @property
    def _ld_alpha(self) -> float | None:
        return self.run_config.language.ld_alpha if self.run_config else None

    def reference_log_probs(
        self, inputs: Mapping[str, Any], vision: Mapping[str, Any], shared: Mapping[str, Any], *, times: int
    ) -> Tensor | None:
        """What `token_log_probs` gives by the reference, of rows that are `times` the same media; null without one.

        `shared` is `vision` as the model that trains has seen it.

        Raises:
            ConfigError: features were kept that are not the reference's, or the reference was given up.
        """
        if self._gave_up:
            raise ConfigError(
                "the reference model is in memory no more, and was not asked about these samples: set "
                "precompute_ref_log_probs: false"
            )
        if self.reference is None:
            return None
        if "vision_features" in vision and not self._sees_alike:
            raise ConfigError(
                "ref_model has another vision tower than the model that trains, whose features are kept: set "
                "cache_vision_features: false"
            )
        with self.reference.computing(self.backbone, inputs["input_ids"].device) as backbone:
            sees = shared if self._sees_alike else self.with_features(backbone, vision, times=times)
            return self.log_probs_of(backbone, **inputs, **sees)


def as_measured(module: ComparingModule, run: RunConfig) -> None:
    """Gives a module that was loaded to be measured the reference model that its numbers are relative to.

    Raises:
        ConfigError: it has its training in its own weights, and the settings name no other model.
        FileNotFoundError: `ref_model` does not exist.
    """
    is_merged = language_model_of(module.backbone) is module.backbone
    if module.needs_reference and is_merged and not run.language.ref_model:
        raise ConfigError(
            f"stage {run.method.stage} is measured by how far the model has moved from a reference, and this one has "
            "no adapter that could be switched off: set ref_model to the model that its training started from"
        )
    module.keep_start()


class PreferenceModule(ComparingModule):
    """Learns to write chosen answers rather than rejected ones."""

    def __init__(self, backbone: Any, config: RunConfig | None = None) -> None:
        super().__init__(backbone, config)
        self.compare = _loss_of(config) if config else None

    @property
    def needs_reference(self) -> bool:
        """Not where the loss compares probabilities of the model alone."""
        return self.compare is not None and self.compare.kind not in WITHOUT_REFERENCE

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_labels: Tensor,
        num_learned: Tensor | None = None,
        reference_log_probs: Tensor | None = None,
        **vision: Any,
    ) -> LanguageOutput:
        """Of a batch whose first half are chosen answers and whose second half rejected ones: the mean loss, and of
        each pair the log-probability for each token of both answers, and, in a run, both rewards, (pairs, 2 or 4).

        `reference_log_probs`, (pairs, 2), is what `reference_totals` gave, where it was asked before.
        """
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "token_labels": token_labels}
        shared = self.with_features(self.backbone, vision, times=2)
        ours = self.log_probs_of(self.backbone, **inputs, **shared)
        policy = pair_log_probs(ours, token_labels, ld_alpha=self._ld_alpha)
        means = [policy.chosen.mean.detach(), policy.rejected.mean.detach()]
        if self.compare is None:
            return LanguageOutput(logits=torch.stack(means, dim=1))
        if reference_log_probs is None:
            theirs = self.reference_log_probs(inputs, vision, shared, times=2)
            reference = None if theirs is None else pair_log_probs(theirs, token_labels, ld_alpha=self._ld_alpha)
        else:
            reference = policy.with_totals(*reference_log_probs.unbind(dim=1))
        losses = self.compare(policy, reference, updates=self.training)
        rewards = self.compare.rewards(policy, reference)
        if self.training:
            self.numbers = pair_numbers(*rewards) | _log_prob_numbers(policy)
        return LanguageOutput(loss=losses.mean(), logits=torch.stack((*means, *rewards), dim=1))


class TaggedModule(ComparingModule):
    """Learns from answers of which each is desirable or not."""

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_labels: Tensor,
        is_desirable: Tensor,
        reference_log_probs: Tensor | None = None,
        **vision: Any,
    ) -> LanguageOutput:
        """Of a batch whose first rows are answers, and whose others are the same prompts with answers to other ones.

        `is_desirable` is (answers,); `reference_log_probs`, (answers, 2), is what `reference_totals` gave of each of
        them and of the other answer to its prompt, where it was asked before.

        The mean loss, and of each answer the log-probability for each of its tokens and, in a run, its reward,
        (answers, 1 or 2). Where there are no other rows, the estimate of the KL divergence is 0.
        """
        count, rows = len(is_desirable), len(token_labels)
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "token_labels": token_labels}
        shared = self.with_features(self.backbone, vision, times=rows // count)
        ours = self._log_probs_by_rounds(inputs | shared, times=rows // count)
        answers = answer_log_probs(ours, token_labels)
        policy, others = answers[slice(count)], answers[slice(count, None)]
        means = policy.mean.detach()
        if reference_log_probs is None:
            theirs = self.reference_log_probs(inputs, vision, shared, times=rows // count)
            compared = None if theirs is None else answer_log_probs(theirs, token_labels)
        else:
            compared = AnswerLogProbs(reference_log_probs.T.flatten(), answers.num_tokens)
        if compared is None or self.run_config is None:
            return LanguageOutput(logits=means.unsqueeze(1))
        reference, settings = compared[slice(count)], self.run_config.language
        kl = kl_of_mismatched(
            others, compared[slice(count, None)], **({"summed": summed_over_processes} if self.training else {})
        )
        losses = kto_loss(
            policy,
            reference,
            is_desirable,
            kl=kl,
            beta=settings.pref_beta,
            desirable_weight=settings.kto_chosen_weight,
            undesirable_weight=settings.kto_rejected_weight,
        )
        if settings.pref_ftx:
            losses = losses - settings.pref_ftx * policy.mean * is_desirable
        rewards = settings.pref_beta * (policy.total - reference.total).detach()
        if self.training:
            self.numbers = {
                "rewards/chosen": rewards[is_desirable],
                "rewards/rejected": rewards[~is_desirable],
                "kl": kl.unsqueeze(0),
            }
        return LanguageOutput(loss=losses.mean(), logits=torch.stack((means, rewards), dim=1))

    def _log_probs_by_rounds(self, inputs: Mapping[str, Any], *, times: int) -> Tensor:
        """Of all rows; with gradient those of the first of `times` rounds over the same media."""
        # Of a model that takes no features the pixels are not divided here.
        if SHARED_PROMPTS in inputs or has_pixels(inputs):
            return self.log_probs_of(self.backbone, **inputs)
        first = self.log_probs_of(self.backbone, **_round(inputs, 0, times))
        with torch.no_grad():
            others = [self.log_probs_of(self.backbone, **_round(inputs, each, times)) for each in range(1, times)]
        return torch.cat((first, *others))


def _round(inputs: Mapping[str, Any], number: int, times: int) -> dict[str, Any]:
    """The part of a batch that belongs to one of `times` rounds over the same media."""

    def part(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: part(rows) for name, rows in value.items()}
        if isinstance(value, bool):
            return value
        return value[number * len(value) // times : (number + 1) * len(value) // times]

    return {name: part(value) for name, value in inputs.items()}


def pair_numbers(chosen: Tensor, rejected: Tensor) -> dict[str, Tensor]:
    """What is logged of the rewards of pairs, (pairs,) each."""
    return {
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
        "rewards/accuracies": (chosen > rejected).float(),
        "rewards/margins": chosen - rejected,
    }


def _log_prob_numbers(policy: PairLogProbs) -> dict[str, Tensor]:
    answers: dict[str, AnswerLogProbs] = {"chosen": policy.chosen, "rejected": policy.rejected}
    return {f"logps/{name}": answer.total.detach() for name, answer in answers.items()}


def _loss_of(config: RunConfig) -> PreferenceLoss:
    language = config.language
    return PreferenceLoss(
        language.pref_loss,
        language.pref_beta,
        label_smoothing=language.dpo_label_smoothing,
        simpo_gamma=language.simpo_gamma,
        ftx=language.pref_ftx,
        bco_weight=language.pref_bco_weight,
    )
