"""What a graph takes of a batch: everything that depends on grids is computed before it, outside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ivcp.models.positions import ROPE_POSITIONS
from ivcp.torchvision_compat import register_missing_operators

register_missing_operators()

from transformers.exporters.utils import precompute_export_inputs  # noqa: E402

GRID, PIXELS, SLICES = "video_grid_thw", "pixel_values_videos", "pixel_slices"
TOWER_PREFIX = "tower_"
"""Inputs with this prefix go to the vision tower."""
_TOKENS = ("input_ids", "attention_mask", "mm_token_type_ids", ROPE_POSITIONS)
_KEPT = ("position_ids", "interp_indices", "interp_weights", "window_index")
"""What a tower computes of its grids and a graph takes ready: positions of patches, for Qwen3-VL where each looks up
its learned position, for Qwen2.5-VL the order in which patches of a window lie together. Where slices begin is no
input, the shape of `SLICES` says it."""
WINDOWS = "cu_window_seqlens"
"""Of a tower with windows: what tells them apart, to the tower where each begins, to a graph which patches see each
other."""


class GraphInputError(ValueError):
    """A batch that a graph cannot take: its clips are not of one frame size."""


def graph_inputs(batch: Mapping[str, Any], tower: nn.Module) -> dict[str, Tensor]:
    """The inputs of a graph by their names, from a batch as collators make it.

    The patches are (slices, patches of a slice, values): the temporal slices of all clips, which are as large as each
    other. `tower` may be without weights; only its configuration is read.

    Raises:
        GraphInputError: frames of several sizes.
    """
    inputs = {name: batch[name] for name in _TOKENS if name in batch}
    grid = batch[GRID]
    sizes = {(int(height), int(width)) for _, height, width in grid.tolist()}
    if len(sizes) > 1:
        raise GraphInputError(f"clips of frames of {sorted(sizes)} patches in a batch: ask for one size at a time")
    computed: dict[str, Any] = {"grid_thw": grid}
    precompute_export_inputs(tower, computed)
    slices = batch[PIXELS].unflatten(0, (int(grid[:, 0].sum()), -1))
    kept = {name: computed[name] for name in _KEPT if name in computed}
    if WINDOWS in computed:
        kept[WINDOWS] = _seen_in_windows(computed[WINDOWS], slices.shape[1])
    return inputs | {SLICES: slices} | {TOWER_PREFIX + name: value for name, value in kept.items()}


def _seen_in_windows(bounds: Tensor, length: int) -> Tensor:
    """Which patches of a slice see each other, (length, length), in the order of windows: those of the same one.

    `bounds` are where windows begin. No window reaches into another slice, and all slices have the same windows.
    """
    window = torch.bucketize(torch.arange(length), bounds, right=True)
    return window[:, None] == window
