"""Several samples in one row of a batch, which do not see each other.

Positions begin anew with each sample. transformers makes masks of that: block-diagonal ones for SDPA, and the lengths
of sequences for FlashAttention, where all samples lie in one row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ivcp.models.backbone import language_model_of, last_hidden_states
from ivcp.models.positions import PACKED_POSITIONS, ROPE_POSITIONS, RopePositions
from ivcp.torchvision_compat import register_missing_operators

register_missing_operators()

from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled  # noqa: E402
from transformers.utils.generic import is_flash_attention_requested  # noqa: E402

PROBED = 6
"""Tokens of a sample."""
_TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""Largest distance of a packed sample's states from those that it has alone, relative to their length."""
_NO_LEAK = 1e-6
"""Largest distance that other neighbours may make: none, in any precision."""


def packed(batch: Mapping[str, Any], rows: Sequence[range], *, fillers: Mapping[str, int]) -> dict[str, Any]:
    """A right-padded batch of samples, (samples, tokens), with `rows` of samples in place of single ones.

    `fillers` are the names of its token tensors with what stands where a row ends. What the samples read of positions
    is under `PACKED_POSITIONS`, (rows, axes, tokens): places in their sample, then the axes of a model that has its
    own. What stands behind the last sample of a row goes on with it: nothing sees it. All else is left as it is.
    """
    lengths = batch["attention_mask"].sum(dim=1).tolist()

    def in_rows(tensor: Tensor) -> list[Tensor]:
        return [torch.cat([tensor[number, ..., : lengths[number]] for number in row], dim=-1) for row in rows]

    made: dict[str, Any] = {
        name: pad_sequence(in_rows(batch[name]), batch_first=True, padding_value=filler)
        for name, filler in fillers.items()
    }
    places = torch.arange(max(lengths)).expand(len(lengths), 1, -1)
    own = batch.get(ROPE_POSITIONS)
    positions = in_rows(places if own is None else torch.cat((places, own), dim=1))
    width = max(row.shape[-1] for row in positions)
    left = {name: value for name, value in batch.items() if name != ROPE_POSITIONS}
    return left | made | {PACKED_POSITIONS: torch.stack([_filled(row, width) for row in positions])}


def needs_one_row(backbone: Any) -> bool:
    """Whether samples are kept apart only where all of a batch lie in one row."""
    return bool(is_flash_attention_requested(language_model_of(backbone).config.get_text_config()))


def why_unpacked(backbone: Any) -> str | None:
    """Why no row may hold several samples; null where it may."""
    name = type(language_model_of(backbone)).__name__
    if is_deepspeed_zero3_enabled():
        return f"DeepSpeed ZeRO-3 shards {name} before it can be tried whether the samples of a row see each other"
    return None if keeps_samples_apart(backbone) else f"{name} lets the samples of a row see each other"


@torch.no_grad()
def keeps_samples_apart(backbone: Any) -> bool:
    """Whether a model gives each sample of a packed row what it gives the sample alone, whatever stands beside it.

    The first layers of each kind are run on a few tokens: linear attention, or code that makes its masks itself, may
    carry something over from one sample to the next.
    """
    model = language_model_of(backbone)
    ids = torch.tensor(plain_ids(model)[: 3 * PROBED], device=model.device).view(3, -1)
    was_training = backbone.training
    backbone.eval()
    try:
        with few_layers(model):
            alone = _states(backbone, ids[:1], rows=[range(1)])[0]
            first = _states(backbone, ids[[1, 0]], rows=[range(2)])[0, PROBED:]
            second = _states(backbone, ids[[2, 0]], rows=[range(2)])[0, PROBED:]
    finally:
        backbone.train(was_training)
    return is_alike(first, alone) and is_alike(first, second, exactly=True)


def is_alike(states: Tensor, others: Tensor, *, exactly: bool = False) -> bool:
    """Whether states are equal but for rounding, or, `exactly`, as the same computation twice gives them."""
    distance = (states - others).norm() / others.norm()
    return bool(distance <= (_NO_LEAK if exactly else _TOLERANCE[states.dtype]))


def _states(backbone: Any, ids: Tensor, *, rows: Sequence[range]) -> Tensor:
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    positions = RopePositions.of(language_model_of(backbone))
    if positions:
        batch = positions(batch | {"mm_token_type_ids": torch.zeros_like(ids)})
    given = packed(batch, rows, fillers={"input_ids": 0, "attention_mask": 0})
    return last_hidden_states(backbone, **given)


def _filled(positions: Tensor, width: int) -> Tensor:
    """Positions of a row, (axes, tokens), with those of what is behind it."""
    behind = torch.arange(1, width - positions.shape[-1] + 1, device=positions.device)
    return torch.cat((positions, positions[:, -1:] + behind), dim=-1)


@contextmanager
def few_layers(model: Any) -> Iterator[None]:
    """Inside, a transformers model has the first layers only, up to the first one of each kind, and needs no GPU."""
    decoder, config = model.get_decoder(), model.config.get_text_config()
    kinds = list(getattr(config, "layer_types", None) or [])
    count = max(2, *(kinds.index(kind) + 1 for kind in kinds)) if kinds else 2
    layers, attention = decoder.layers, config._attn_implementation
    decoder.layers = nn.ModuleList(layers[:count])
    if needs_one_row(model):
        config._attn_implementation = "sdpa"
    try:
        yield
    finally:
        decoder.layers = layers
        config._attn_implementation = attention


def has_windows(config: Any) -> bool:
    """Whether layers of a language model see only so many tokens back, by its configuration."""
    kinds = getattr(config, "layer_types", None)
    if kinds is None:
        return getattr(config, "sliding_window", None) is not None
    return any(kind != "full_attention" for kind in kinds)


def plain_ids(model: Any) -> list[int]:
    """Some tokens that stand for no media."""
    reserved = set(_token_ids(model.config.to_dict()))
    size = model.config.get_text_config().vocab_size
    return [number for number in range(min(size, 64 * PROBED)) if number not in reserved]


def _token_ids(config: Mapping[str, Any]) -> Iterator[int]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _token_ids(value)
        elif isinstance(value, int) and name.endswith(("token_id", "token_index")):
            yield value
