"""What a graph takes of a batch: everything that depends on grids is computed before it, outside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ivcp.models.positions import ROPE_POSITIONS
from ivcp.torchvision_compat import register_missing_operators

register_missing_operators()

from transformers.exporters.utils import precompute_export_inputs  # noqa: E402

GRID, PIXELS, SLICES = "video_grid_thw", "pixel_values_videos", "pixel_slices"
TOWER_PREFIX = "tower_"
"""Inputs with this prefix go to the vision tower."""
_TOKENS = ("input_ids", "attention_mask", "mm_token_type_ids", ROPE_POSITIONS)
_KEPT = ("position_ids", "interp_indices", "interp_weights")
"""What a tower computes of its grids and a graph takes ready: positions of patches, and for Qwen3-VL where each looks
up its learned position. Where slices begin is no input, the shape of `SLICES` says it."""


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
    slices = int(grid[:, 0].sum())
    inputs[SLICES] = batch[PIXELS].unflatten(0, (slices, -1))
    return inputs | {TOWER_PREFIX + name: computed[name] for name in _KEPT if name in computed}
