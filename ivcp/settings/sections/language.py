"""Settings of the stages that train the model to write: which words are learned, and how answers are compared."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from ivcp.settings.places import Place
from ivcp.settings.sections.section import Section

_COMPARED = ("sigmoid", "hinge", "ipo", "kto_pair")
_KINDS_THAT_READ = {
    "dpo_label_smoothing": ("sigmoid",),
    "simpo_gamma": ("simpo",),
    "pref_bco_weight": _COMPARED,
    "ref_model": _COMPARED,
    "pref_ftx": (*_COMPARED, "simpo"),
}
"""The values of `pref_loss` that a setting means something for; orpo has the chosen answers' loss in itself."""


class LanguageConfig(Section):
    """What the language stages learn."""

    train_on_prompt: bool = False
    """Learn the questions as well (`sft`)."""
    mask_history: bool = False
    """Learn the last answer of a conversation only (`sft`)."""
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
    kto_chosen_weight: float = Field(1.0, ge=0)
    """Weight of desirable answers (`kto`)."""
    kto_rejected_weight: float = Field(1.0, ge=0)
    """Weight of undesirable answers (`kto`)."""

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
