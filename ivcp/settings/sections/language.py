"""Settings of the stages that train the model to write: which words are learned, and how answers are compared."""

from __future__ import annotations

import re
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from ivcp.settings.places import Place
from ivcp.settings.sections.section import Section

_COMPARED = ("sigmoid", "hinge", "ipo", "kto_pair")
_KINDS_THAT_READ = {
    "dpo_label_smoothing": ("sigmoid",),
    "simpo_gamma": ("simpo",),
    "pref_bco_weight": _COMPARED,
    "ref_model": _COMPARED,
    "precompute_ref_log_probs": _COMPARED,
    "pref_ftx": (*_COMPARED, "simpo"),
}
"""The values of `pref_loss` that a setting means something for; orpo has the chosen answers' loss in itself."""


class LanguageConfig(Section):
    """What the language stages learn."""

    train_on_prompt: bool = False
    """Learn the questions as well (`sft`)."""
    mask_history: bool = False
    """Learn the last answer of a conversation only (`sft`)."""
    packing: bool | None = None
    """Put several samples into a row of at most `cutoff_len` tokens (`pt`, `sft`), of which a batch then has
    `per_device_train_batch_size`. Samples of a row never see each other, and count positions from their own start.
    Null does in `pt`, where the model can."""
    neat_packing: bool = False
    """The same as `packing: true`: elsewhere only this one keeps the samples of a row apart."""
    pref_loss: Literal["sigmoid", "hinge", "ipo", "kto_pair", "orpo", "simpo"] = "sigmoid"
    """How `dpo` compares two answers; orpo and simpo need no reference model."""
    pref_beta: float = Field(0.1, gt=0)
    """How closely the model is kept to the reference (`dpo`, `kto`): more is closer."""
    pref_ftx: float = Field(0.0, ge=0)
    """Weight of the chosen answers' own loss beside the preference loss (`dpo`, `kto`)."""
    pref_bco_weight: float = Field(0.0, ge=0)
    """Weight of the binary classifier loss beside the preference loss (`dpo`)."""
    dpo_label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """Share of pairs that are taken to be the wrong way round (`pref_loss: sigmoid`)."""
    simpo_gamma: float = Field(0.5, ge=0)
    """Margin that `pref_loss: simpo` asks for."""
    ld_alpha: float | None = Field(None, ge=0, le=1)
    """Weight of the tokens by which an answer is longer than the other one of its pair (`dpo`); null is 1."""
    ref_model: Place | None = None
    """The reference model of `dpo` and `kto`; null is the base model without the adapter, or the model as it starts."""
    precompute_ref_log_probs: bool | None = None
    """Ask the reference model about each sample once before training, not in every step (`dpo`, `kto`); what it says
    is kept beside the prepared clips. Null does for `dpo` where samples come several times and nothing changes them;
    true is an error where something does. With `kto` each prompt then meets the same answer of another sample in every
    epoch."""
    kto_chosen_weight: float = Field(1.0, ge=0)
    """Weight of desirable answers (`kto`)."""
    kto_rejected_weight: float = Field(1.0, ge=0)
    """Weight of undesirable answers (`kto`)."""

    reward_model: Place | None = None
    """Directory of a model that `rm` trained, whose score is an answer's reward (`ppo`, `grpo`)."""
    reward_rule: Literal["exact_match", "contains", "pattern"] | None = None
    """What is rewarded with 1 in place of a model's score, and all else with 0 (`ppo`, `grpo`): the row's answer, with
    case, punctuation and articles aside; an answer that holds it; or what `reward_pattern` finds."""
    reward_pattern: str | None = None
    """Regular expression of `reward_rule: pattern`. With a group: what the group finds in the answer must be what it
    finds in the row's, such as `(sits|stands|waves)`."""
    num_generations: int = Field(8, ge=2)
    """Answers that `grpo` compares with each other, for each prompt."""
    grpo_beta: float = Field(0.0, ge=0)
    """Weight of the penalty for leaving the reference model (`grpo`); 0 needs none."""
    scale_rewards: bool = True
    """Divide how much better an answer is than its group by the group's standard deviation (`grpo`)."""
    ppo_epochs: int = Field(4, ge=1)
    """Updates with the same written answers (`ppo`)."""
    ppo_whiten_rewards: bool = False
    """Give the rewards of tokens a standard deviation of 1 (`ppo`)."""
    kl_coef: float = Field(0.05, ge=0)
    """Weight of the KL penalty in the rewards of tokens (`ppo`)."""
    cliprange: float = Field(0.2, gt=0, lt=1)
    """How far an update may change the probability of a token (`ppo`, `grpo`)."""
    cliprange_value: float = Field(0.2, gt=0)
    """How far an update may change the value of a token (`ppo`)."""
    vf_coef: float = Field(0.1, ge=0)
    """Weight of the value head's loss (`ppo`)."""
    gamma: float = Field(1.0, gt=0, le=1)
    """How much a reward counts one token earlier (`ppo`)."""
    lam: float = Field(0.95, ge=0, le=1)
    """Between what a value says, 0, and what came of it, 1, in the advantage of a token (`ppo`)."""

    @property
    def wants_packing(self) -> bool | None:
        """Whether rows are to hold several samples; null where the settings do not say."""
        return True if self.neat_packing else self.packing

    @field_validator("reward_pattern")
    @classmethod
    def _is_a_pattern(cls, value: str | None) -> str | None:
        try:
            found = re.compile(value or "")
        except re.error as error:
            raise ValueError(f"expected a regular expression: {error}") from error
        if found.groups > 1:
            raise ValueError(f"expected at most one group, got {found.groups}: write (?:…) for the others")
        return value

    @model_validator(mode="after")
    def _learns_one_or_the_other(self) -> Self:
        if self.train_on_prompt and self.mask_history:
            raise ValueError(
                "train_on_prompt and mask_history exclude each other, as in LLaMA-Factory: the questions are "
                "learned, or the last answer alone; keep one"
            )
        return self

    @model_validator(mode="after")
    def _one_reward(self) -> Self:
        if self.reward_model and self.reward_rule:
            raise ValueError("reward_model and reward_rule exclude each other: keep one")
        if (self.reward_rule == "pattern") != (self.reward_pattern is not None):
            raise ValueError("reward_rule: pattern and reward_pattern belong together: set both, or neither")
        return self

    @model_validator(mode="after")
    def _settings_of_losses_are_used(self) -> Self:
        usual = type(self).model_fields
        for name, kinds in _KINDS_THAT_READ.items():
            if getattr(self, name) != usual[name].default and self.pref_loss not in kinds:
                raise ValueError(
                    f"{name} = {getattr(self, name)} has no meaning for pref_loss: {self.pref_loss}; remove it or "
                    f"choose pref_loss: {' or '.join(kinds)}"
                )
        return self
