"""Loads the backbone: a video language model from a local directory or from the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from components.config import RunConfig
from components.model_families import check_architecture
from components.model_path import check_model_path
from components.training_config import ModelConfig

_ATTENTION = {"auto": None, "disabled": "eager", "sdpa": "sdpa", "fa2": "flash_attention_2"}


def load_base_model(
    model_name_or_path: str | Path, *, settings: ModelConfig, dtype: torch.dtype = torch.float32
) -> Any:
    """A transformers image-text-to-text model in evaluation mode.

    Raises:
        FileNotFoundError: `model_name_or_path` is a path without a model.
        UnsupportedModelError: the model reads no videos together with text.
    """
    from transformers import AutoConfig, AutoModelForImageTextToText

    check_model_path(model_name_or_path)
    name = str(model_name_or_path)
    place: dict[str, Any] = {
        "revision": settings.model_revision,
        "cache_dir": settings.cache_dir,
        "trust_remote_code": settings.trust_remote_code,
    }
    check_architecture(AutoConfig.from_pretrained(name, **place), name)
    model = AutoModelForImageTextToText.from_pretrained(
        name,
        **place,
        attn_implementation=_ATTENTION[settings.flash_attn],
        dtype=dtype,
    )
    return model.eval()


def training_dtype(config: RunConfig) -> torch.dtype:
    """Precision of the weights: bfloat16 for LoRA with `bf16`, else float32 (mixed precision casts as it goes)."""
    is_lora = config.method.finetuning_type == "lora"
    return torch.bfloat16 if config.train.bf16 and is_lora else torch.float32
