"""The action classifier: a video language model, the action token's row, and the ActionDecoder, in one module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from components.torchvision_compat import register_missing_operators
from components.training_config import DecoderType
from components.vision_features import encoder_outputs

register_missing_operators()

from transformers.utils import ModelOutput  # noqa: E402


class ActionDecoder(nn.Module):
    """Maps the hidden state at the action token, (batch, hidden_size), to class logits, (batch, num_classes)."""

    def __init__(
        self,
        *,
        decoder_type: DecoderType,
        hidden_size: int,
        num_classes: int,
        decoder_hidden_size: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.decoder_type = decoder_type
        self.hidden_size = hidden_size
        self.num_classes = num_classes
        self.decoder_hidden_size = decoder_hidden_size or hidden_size
        self.layers: nn.Module = (
            nn.Linear(hidden_size, num_classes)
            if decoder_type == "linear"
            else nn.Sequential(
                nn.Linear(hidden_size, self.decoder_hidden_size),
                nn.GELU(),
                nn.Dropout(dropout),
                nn.Linear(self.decoder_hidden_size, num_classes),
            )
        )

    def forward(self, states: Tensor) -> Tensor:
        """Class logits, (batch, num_classes), in the decoder's own precision."""
        logits: Tensor = self.layers(states.to(next(self.parameters()).dtype))
        return logits


@dataclass
class ActionOutput(ModelOutput):  # type: ignore[misc]
    """`loss` is a scalar, where labels were given; `logits` is (batch, num_classes)."""

    loss: Tensor | None = None
    logits: Tensor | None = None


class ActionClassifier(nn.Module):
    """Classifies a clip by the language model's last hidden state at the action token.

    The decoder and the token's row are parameters of this module, so that optimizer, checkpoints and
    distributed wrappers see them. The row replaces the embedding's output at the token by forward hooks: the
    token's id may lie behind the embedding's end, and the embedding itself stays as it is.

    Args:
        backbone: a transformers video language model, or a peft model around one.
        decoder: maps the state to class logits.
        action_token_id: id of the action token; it stands exactly once in every row of `input_ids`.
        action_token_is_new: the backbone has never seen the token, so that its row starts at the embedding's mean.
        label_smoothing: of the cross-entropy.
    """

    accepts_loss_kwargs = False
    """Keeps transformers' Trainer from scaling the mean loss by the number of processes."""

    def __init__(
        self,
        backbone: Any,
        decoder: ActionDecoder,
        *,
        action_token_id: int,
        action_token_is_new: bool = True,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.decoder = decoder
        self.action_token_id = action_token_id
        self.label_smoothing = label_smoothing
        embedding = self.backbone.get_input_embeddings()
        self.action_token_row = nn.Parameter(
            initial_row(embedding.weight, None if action_token_is_new else action_token_id)
        )
        self._ids: Tensor | None = None
        embedding.register_forward_pre_hook(self._hide_action_token)
        embedding.register_forward_hook(self._insert_row)

    @property
    def config(self) -> Any:
        """The backbone's configuration (transformers' Trainer asks the model for it)."""
        return self.backbone.config

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: dict[str, Any] | None = None) -> None:
        """Computes activations again in the backward pass instead of keeping them."""
        self.backbone.gradient_checkpointing_enable(gradient_checkpointing_kwargs=gradient_checkpointing_kwargs)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None, **vision: Any
    ) -> ActionOutput:
        """Class logits of a batch, and the mean cross-entropy where `labels`, (batch,), are given.

        `input_ids` and `attention_mask` are (batch, tokens), right-padded; `vision` holds the pixel tensors
        that the model's processor made, or, in their place, `vision_features`: what the tower made of them before.
        """
        logits = self.decoder(self.action_states(input_ids, attention_mask, **vision)).float()
        loss = (
            functional.cross_entropy(logits, labels, label_smoothing=self.label_smoothing if self.training else 0.0)
            if labels is not None
            else None
        )
        return ActionOutput(loss=loss, logits=logits)

    def action_states(self, input_ids: Tensor, attention_mask: Tensor, **vision: Any) -> Tensor:
        """The last hidden state at the action token, (batch, hidden_size): no vocabulary logits are computed."""
        if "vision_features" in vision:
            vision["mm_encoder_outputs"] = encoder_outputs(vision.pop("vision_features"))
        states = (
            language_model_of(self.backbone)
            .base_model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False, **vision)
            .last_hidden_state
        )
        positions = (input_ids == self.action_token_id).int().argmax(dim=1)
        picked: Tensor = states[torch.arange(len(positions), device=states.device), positions]
        return picked

    def _hide_action_token(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        self._ids = inputs[0]
        return (inputs[0].masked_fill(inputs[0] == self.action_token_id, 0), *inputs[1:])

    def _insert_row(self, _: nn.Module, inputs: tuple[Tensor, ...], embedded: Tensor) -> Tensor:
        assert self._ids is not None
        here = (self._ids == self.action_token_id).unsqueeze(-1)
        self._ids = None
        return torch.where(here, self.action_token_row.to(embedded.dtype), embedded)


def language_model_of(backbone: Any) -> Any:
    """The transformers model itself: what a peft model wraps, or the model as it is.

    peft replaces layers in place, so that the inner model runs with the adapter.
    """
    from peft import PeftModel

    return backbone.get_base_model() if isinstance(backbone, PeftModel) else backbone


def initial_row(embedding: Tensor, known_id: int | None) -> Tensor:
    """A float32 start for a token's row, (hidden_size,): the row of `known_id`, or the mean for a new token.

    `embedding` is (num_tokens, hidden_size). The mean puts a new token where the others are (Hewitt, "Initializing
    New Word Embeddings for Pretrained Language Models", 2021), the same in every run; rows that pad the vocabulary
    are no start, since nothing ever trained them.
    """
    row = embedding.mean(dim=0) if known_id is None else embedding[known_id]
    return row.detach().float().clone()
