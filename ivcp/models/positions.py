"""Rotary positions of Qwen-like models, made with the batch.

These models find the positions of a batch from tokens, grids and times in Python loops over samples. In the forward
pass every loop waits for the GPU; in the collator nothing waits, and a DataLoader's workers share the work. Times are
exact there, too: in a batch, DeepSpeed and FSDP2 cast all that is floating to bfloat16.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Self

from torch import nn

ROPE_POSITIONS = "rope_positions"
"""Their name in a batch: (batch, axes, tokens), which `ivcp.models.backbone` gives to the model as `position_ids`."""
PACKED_POSITIONS = "packed_positions"
"""Those of rows with several samples, (rows, axes, tokens): see `ivcp.models.packing`."""
_TIMES = ("second_per_grid_ts", "video_second_per_grid", "use_audio_in_video")
"""What only the positions depend on."""


def finds_positions_by_mask(model: Any) -> bool:
    """Whether a transformers model that has positions of its own counts them without being told where media stand."""
    compute = getattr(type(model.base_model), "get_rope_index", None)
    return compute is not None and "mm_token_type_ids" not in inspect.signature(compute).parameters


class RopePositions:
    """Computes the positions of batches as one model does; small, so that a copy for a worker process costs nothing."""

    def __init__(self, kind: type[nn.Module], config: Any) -> None:
        """`kind` is the class of a transformers model's inner model, which computes positions from its `config`."""
        model: Any = kind.__new__(kind)
        nn.Module.__init__(model)  # without its layers
        model.config = config
        vision = getattr(config, "vision_config", None)
        model.spatial_merge_size = getattr(vision, "spatial_merge_size", None)  # omni models have it beside
        self._compute = model.get_rope_index
        self._names = frozenset(inspect.signature(self._compute).parameters)

    @classmethod
    def of(cls, model: Any) -> Self | None:
        """For a transformers model that has positions of its own; null for all others."""
        kind = type(model.base_model)
        return cls(kind, model.base_model.config) if "get_rope_index" in dir(kind) else None

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The batch with its positions under their name, (batch, axes, tokens), in place of the times."""
        given = dict(batch)
        if "feature_attention_mask" in batch:
            given["audio_seqlens"] = batch["feature_attention_mask"].sum(dim=-1)
        if "video_second_per_grid" in batch:
            given["second_per_grids"] = batch["video_second_per_grid"]
        positions, _ = self._compute(**{name: value for name, value in given.items() if name in self._names})
        left = {name: value for name, value in batch.items() if name not in _TIMES}
        return left | {ROPE_POSITIONS: positions.transpose(0, 1).contiguous()}
