"""The class of transformers that finds a model's own: one that sees, one that hears alone, or one that reads texts."""

from __future__ import annotations

from typing import Any

from ivcp.torchvision_compat import register_missing_operators

register_missing_operators()

from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForMultimodalLM  # noqa: E402
from transformers.models.auto.modeling_auto import (  # noqa: E402
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
)


def is_text_model(config: Any) -> bool:
    """Whether a configuration is of a language model of transformers that reads texts alone."""
    kind = config.model_type
    return kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES


def hears_alone(config: Any) -> bool:
    """Whether a configuration is that of a model that hears, and sees nothing."""
    kind = config.model_type
    is_listed = kind in MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES and kind not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    return is_listed and "audio_config" in config.sub_configs and "vision_config" not in config.sub_configs


def auto_class(config: Any) -> Any:
    """The class of transformers that finds the one of a model by its configuration."""
    if is_text_model(config):
        return AutoModelForCausalLM
    return AutoModelForMultimodalLM if hears_alone(config) else AutoModelForImageTextToText
