"""The class of transformers that finds a model's own: one that sees, or one that hears alone."""

from __future__ import annotations

from typing import Any

from ivcp.torchvision_compat import register_missing_operators

register_missing_operators()

from transformers import AutoModelForImageTextToText, AutoModelForMultimodalLM  # noqa: E402
from transformers.models.auto.modeling_auto import (  # noqa: E402
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
)


def hears_alone(config: Any) -> bool:
    """Whether a configuration is that of a model that hears, and sees nothing."""
    kind = config.model_type
    is_listed = kind in MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES and kind not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    return is_listed and "audio_config" in config.sub_configs and "vision_config" not in config.sub_configs


def auto_class(config: Any) -> Any:
    """The class of transformers that finds the one of a model by its configuration."""
    return AutoModelForMultimodalLM if hears_alone(config) else AutoModelForImageTextToText
