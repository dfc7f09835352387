"""Attention of Qwen2-VL-like vision towers over all frames of a batch at once, without FlashAttention.

These towers see a batch as one long row of patches in which each temporal slice (or window) attends to itself only.
With SDPA, transformers calls attention for one slice after the other in Python. Slices of equal size can go through
one call instead, with the slice as the batch dimension. transformers hands over the whole row, with the slices'
bounds, to every implementation that has "flash" in its name (`is_flash_attention_requested`): hence the name of this
one.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from ivcp.torchvision_compat import register_missing_operators

register_missing_operators()

from transformers import AttentionInterface  # noqa: E402

IMPLEMENTATION = "sdpa_in_flash_layout"


def batch_vision_attention(tower: Any) -> bool:
    """Gives the vision tower of a loaded transformers model batched attention; false where it does not fit.

    It fits a tower that runs SDPA slice by slice: one whose attention takes `cu_seqlens`.
    """
    takes_slices = any(
        "cu_seqlens" in inspect.signature(module.forward).parameters
        for name, module in tower.named_modules()
        if name.endswith("attn")
    )
    if not takes_slices or tower.config._attn_implementation != "sdpa":
        return False
    tower.config._attn_implementation = IMPLEMENTATION
    return True


def attend_in_slices(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    cu_seq_lens_q: Tensor,
    scaling: float,
    dropout: float = 0.0,
    slice_length: Any = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention within slices of one row: tensors are (1, heads, patches, head_dim), the result has heads and patches
    exchanged.

    `cu_seq_lens_q` is (slices + 1,): where slices start and, last, the number of patches. Slices of one size share a
    call; `slice_length` says that all have it, where a graph is traced and no number can be read from a tensor. With
    it, a `cu_seq_lens_q` of (slice_length, slice_length) says which patches of a slice see each other.
    """
    attend = partial(scaled_dot_product_attention, dropout_p=dropout, scale=scaling)
    lengths = [slice_length] if slice_length is not None else cu_seq_lens_q.diff().tolist()
    if slice_length is not None or len(set(lengths)) == 1:
        mask = cu_seq_lens_q if cu_seq_lens_q.ndim == 2 else None
        queries, keys, values = (_slices(tensor, lengths[0]) for tensor in (query, key, value))
        attended = attend(queries, keys, values, attn_mask=mask)
        return attended.transpose(1, 2).flatten(0, 1).unsqueeze(0), None
    of_length: dict[int, list[int]] = defaultdict(list)
    for number, length in enumerate(lengths):
        of_length[length].append(number)
    pieces = [torch.split(tensor[0], lengths, dim=1) for tensor in (query, key, value)]
    results: dict[int, Tensor] = {}
    for numbers in of_length.values():
        attended = attend(*(torch.stack([piece[number] for number in numbers]) for piece in pieces))
        results.update(zip(numbers, attended.transpose(1, 2), strict=True))
    return torch.cat([results[number] for number in range(len(lengths))]).unsqueeze(0), None


def _slices(tensor: Tensor, length: int) -> Tensor:
    """(1, heads, slices * length, head_dim) as (slices, heads, length, head_dim), without a copy."""
    _, heads, _, head_dim = tensor.shape
    return tensor[0].view(heads, -1, length, head_dim).transpose(0, 1)


AttentionInterface.register(IMPLEMENTATION, attend_in_slices)
