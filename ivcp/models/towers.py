"""What sees and what hears in a transformers model."""

from __future__ import annotations

from typing import Any


def vision_tower_of(model: Any) -> Any:
    """What sees in a transformers model; null where nothing does."""
    return _tower(model, "video")


def towers_of(model: Any) -> list[Any]:
    """What sees and what hears in a transformers model, as far as it has them."""
    return [tower for tower in (_tower(model, "video"), _tower(model, "audio")) if tower is not None]


def _tower(model: Any, modality: str) -> Any:
    found = model.get_encoder(modality=modality)
    # Where there is none, transformers gives the model itself.
    return None if found is None or found is model or found is model.base_model else found
