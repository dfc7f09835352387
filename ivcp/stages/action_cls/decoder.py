"""The ActionDecoder: from the hidden state at the action token to class logits."""

from __future__ import annotations

from typing import Self

import torch
from pydantic import Field
from torch import Tensor, nn

from ivcp.records import Record
from ivcp.settings import ActionClsConfig, DecoderType


def _is_empty(value: object) -> bool:
    return value == ()


class DecoderShape(Record):
    """What a decoder's weights depend on: stored as metadata of its file."""

    decoder_type: DecoderType
    hidden_size: int
    """Of the language model's states."""
    num_classes: int
    decoder_hidden_size: int | None = None
    """Width of the MLP or the transformer layers."""
    num_transformer_layers: int | None = None
    """Of the transformer types."""
    num_heads: int | None = None
    """Of the transformer types."""
    head_classes: tuple[int, ...] = Field((), exclude_if=_is_empty)
    """Classes of each head, whose sum is `num_classes`; empty without heads."""

    @classmethod
    def from_settings(
        cls, settings: ActionClsConfig, *, hidden_size: int, num_classes: int, head_classes: tuple[int, ...] = ()
    ) -> Self:
        """The shape that the settings ask for.

        Raises:
            ValueError: the width of a transformer decoder is no multiple of its heads.
        """
        kind, heads = settings.action_decoder_type, settings.action_decoder_num_heads
        width = settings.action_decoder_hidden_size or hidden_size
        is_transformer = kind in ("transformer", "transformer_no_vision")
        if is_transformer and width % heads:
            raise ValueError(
                f"action_decoder_num_heads = {heads} does not divide the decoder's width {width}: change it, or set "
                f"action_decoder_hidden_size to a multiple of {heads}"
            )
        return cls(
            decoder_type=kind,
            hidden_size=hidden_size,
            num_classes=num_classes,
            decoder_hidden_size=width if settings.has_width else None,
            num_transformer_layers=settings.action_decoder_num_transformer_layers if is_transformer else None,
            num_heads=heads if is_transformer else None,
            head_classes=head_classes,
        )

    @property
    def of_heads(self) -> tuple[DecoderShape, ...]:
        """The decoder of each head; empty without heads."""
        return tuple(self.model_copy(update={"num_classes": count, "head_classes": ()}) for count in self.head_classes)


class ActionDecoder(nn.Module):
    """Maps the hidden state at the action token, (batch, hidden_size), to class logits, (batch, num_classes).

    The transformer type also looks at the clip's vision tokens, as the language model's last layer left them. With
    heads, each has a decoder of its own, and logits are those of all heads, one behind the other.
    """

    def __init__(self, shape: DecoderShape, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.shape = shape
        self.layers: nn.Module = (
            nn.ModuleList([ActionDecoder(head, dropout=dropout) for head in shape.of_heads])
            if shape.head_classes
            else _build(shape, dropout)
        )

    @property
    def reads_vision_states(self) -> bool:
        """Whether `forward` needs the states at the vision tokens."""
        return self.shape.decoder_type == "transformer"

    @property
    def linear(self) -> tuple[Tensor, Tensor] | None:
        """Weight, (num_classes, hidden_size), and bias, (num_classes,), where all of it is linear."""
        if isinstance(self.layers, nn.ModuleList):
            heads = [head.linear for head in self.layers]
            weights, biases = zip(*heads, strict=True) if all(heads) else ((), ())
            return (torch.cat(weights), torch.cat(biases)) if weights else None
        return (self.layers.weight, self.layers.bias) if isinstance(self.layers, nn.Linear) else None

    def forward(self, states: Tensor, vision_states: Tensor | None = None, vision_mask: Tensor | None = None) -> Tensor:
        """Class logits, (batch, num_classes), in the decoder's own precision.

        `states` is (batch, hidden_size). Where `reads_vision_states`: `vision_states` is (batch, tokens,
        hidden_size), and `vision_mask`, (batch, tokens), is true at the clip's own vision tokens.
        """
        if isinstance(self.layers, nn.ModuleList):
            return torch.cat([head(states, vision_states, vision_mask) for head in self.layers], dim=-1)
        dtype = next(self.parameters()).dtype
        if isinstance(self.layers, TransformerDecoder):
            context = vision_states.to(dtype) if vision_states is not None and self.reads_vision_states else None
            return self.layers.forward(states.to(dtype), context, vision_mask)
        logits: Tensor = self.layers(states.to(dtype))
        return logits


class TransformerDecoder(nn.Module):
    """Pre-norm transformer layers over the action token's state and, where given, the vision tokens' states."""

    def __init__(self, shape: DecoderShape, dropout: float) -> None:
        super().__init__()
        width, heads, depth = shape.decoder_hidden_size, shape.num_heads, shape.num_transformer_layers
        if width is None or heads is None or depth is None:
            raise ValueError(f"a transformer decoder needs its width, heads and layers, got {shape}")
        self.project = nn.Linear(shape.hidden_size, width)
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.classify = nn.Linear(width, shape.num_classes)

    def forward(self, states: Tensor, context: Tensor | None, context_mask: Tensor | None) -> Tensor:
        """Class logits; `context_mask` keeps each clip to its own tokens, whatever the batch's padding."""
        tokens, hidden = states.unsqueeze(1), None
        if context is not None and context_mask is not None:
            tokens = torch.cat([tokens, context], dim=1)
            hidden = ~torch.cat([context_mask.new_ones(states.shape[0], 1), context_mask], dim=1)
        encoded = self.encoder(self.project(tokens), src_key_padding_mask=hidden)
        logits: Tensor = self.classify(self.norm(encoded[:, 0]))
        return logits


def _build(shape: DecoderShape, dropout: float) -> nn.Module:
    if shape.decoder_type == "linear":
        return nn.Linear(shape.hidden_size, shape.num_classes)
    if shape.decoder_type == "mlp":
        width = shape.decoder_hidden_size or shape.hidden_size
        return nn.Sequential(
            nn.Linear(shape.hidden_size, width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, shape.num_classes)
        )
    return TransformerDecoder(shape, dropout)
