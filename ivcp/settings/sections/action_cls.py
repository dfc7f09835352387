"""Settings of the stage `action_cls`."""

from __future__ import annotations

import re
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from ivcp.settings.places import LocalPath
from ivcp.settings.sections.section import Section, as_names

ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
DecoderType = Literal["linear", "mlp", "transformer", "transformer_no_vision"]
SweepDecoderType = Literal["linear", "mlp"]
_HEAD_NAME = re.compile(r"[\w. -]+")
_WITHOUT_WIDTH: tuple[DecoderType, ...] = ("linear",)
"""The decoder types that `action_decoder_hidden_size` means nothing for."""


class ActionClsConfig(Section):
    """How a clip becomes class logits."""

    problem_type: ProblemType = "single_label_classification"
    """What `action_label` holds, in transformers' words: one class; a list of classes, any number of which may be shown
    at once (`multi_label_classification`); or a number that is to be predicted (`regression`)."""
    action_heads: tuple[str, ...] = ()
    """Columns that hold one class each, such as `verb,noun`, in the place of `action_label`: each is learned by a
    decoder of its own on the same state."""
    num_action_classes: int | None = Field(None, ge=2)
    """Number of classes. Null counts the labels; a number that disagrees with the labels is an error."""
    action_decoder_type: DecoderType = "linear"
    """Classifier on the hidden state at the action token: one linear layer, two with GELU, or transformer layers
    over the token's state, with the clip's own vision tokens or without."""
    action_decoder_hidden_size: int | None = Field(None, ge=1)
    """Width of the MLP and transformer decoders; null is the language model's hidden size."""
    action_decoder_num_transformer_layers: int = Field(2, ge=1)
    """Layers of the transformer decoders."""
    action_decoder_num_heads: int = Field(8, ge=1)
    """Attention heads of the transformer decoders."""
    action_decoder_dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout inside the MLP and transformer decoders."""
    action_decoder_path: LocalPath | None = None
    """Directory or `action_decoder.safetensors` file to start the decoder from; null starts it at random."""
    action_token: str = Field("<ACTION>", min_length=3)
    """The special token whose hidden state is classified. It stands once in every sample."""
    action_token_lr_scale: float = Field(0.1, ge=0)
    """Learning rate of the action token's embedding row, as a share of `learning_rate`."""
    action_cls_token_loss_weight: float = Field(0.0, ge=0)
    """Weight of the language-model loss on the answer behind the action token. 0 computes nothing behind it."""
    head_sweep: bool = False
    """With `freeze` and `freeze_trainable_layers: 0`: train many decoders at once on states computed once."""
    head_sweep_decoder_types: tuple[SweepDecoderType, ...] = Field(("linear", "mlp"), min_length=1)
    """Decoder types that a head sweep tries, in place of `action_decoder_type`."""
    head_sweep_learning_rates: tuple[float, ...] = Field((3e-4, 1e-3, 3e-3, 1e-2), min_length=1)
    """Peak learning rates that a head sweep tries."""
    head_sweep_weight_decays: tuple[float, ...] = Field((0.0, 0.1), min_length=1)
    """Weight decays that a head sweep tries."""
    head_sweep_seeds: int = Field(2, ge=1)
    """Initialisations that a head sweep tries of each combination."""
    head_sweep_epochs: int = Field(50, ge=1)
    """Passes over the training states of a head sweep."""

    @field_validator("action_heads", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return as_names(value)

    @field_validator("action_heads")
    @classmethod
    def _are_several(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        names = [name.strip() for name in value]
        if wrong := [name for name in names if name and not _HEAD_NAME.fullmatch(name)]:
            raise ValueError(f"{wrong[0]!r}: expected letters, digits, spaces, _, - and ., as figures are named by it")
        if len(names) == 1 or "" in names or len(set(names)) != len(names):
            raise ValueError(
                f"expected at least two different columns, such as verb,noun, got {', '.join(map(repr, value))}; the "
                "column of a single class is named in dataset_info.json, columns.action_label"
            )
        return tuple(names)

    @field_validator("head_sweep_decoder_types", "head_sweep_learning_rates", "head_sweep_weight_decays", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return as_names(value)

    @model_validator(mode="after")
    def _width_is_used(self) -> Self:
        if self.action_decoder_hidden_size and not self.has_width:
            raise ValueError(
                f"action_decoder_hidden_size has no meaning for action_decoder_type: {self.action_decoder_type}; "
                "remove it or choose action_decoder_type: mlp or transformer"
            )
        return self

    @model_validator(mode="after")
    def _targets_fit(self) -> Self:
        if self.action_heads and self.problem_type != "single_label_classification":
            raise ValueError(f"action_heads: each head has one class, and problem_type: {self.problem_type} has no "
                             "heads: leave one of both out")  # fmt: skip
        if self.num_action_classes and (self.action_heads or self.problem_type == "regression"):
            kind = "with action_heads each head has its own" if self.action_heads else "a number has no classes"
            raise ValueError(f"num_action_classes: {kind}: leave it out")
        if self.head_sweep and self.has_other_targets:
            raise ValueError("head_sweep tries decoders for one class: leave it out with problem_type or action_heads")
        return self

    @property
    def has_other_targets(self) -> bool:
        """Whether a clip is labelled with something else than one class."""
        return bool(self.action_heads) or self.problem_type != "single_label_classification"

    @property
    def has_width(self) -> bool:
        """Whether the decoder has layers whose width can be chosen."""
        return self.action_decoder_type not in _WITHOUT_WIDTH

    def with_type(self, kind: DecoderType) -> Self:
        """The same settings for another type of decoder."""
        width = None if kind in _WITHOUT_WIDTH else self.action_decoder_hidden_size
        return self.model_copy(update={"action_decoder_type": kind, "action_decoder_hidden_size": width})
