"""Loads the backbone: a video language model from wherever `ivcp.models.source` finds it, or the Hugging Face hub."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch

from ivcp.distributed.weights import whole_shapes_compared
from ivcp.models.auto_class import auto_class
from ivcp.models.base_files import check_weights
from ivcp.models.configuration import read_configuration
from ivcp.models.families import check_architecture, check_decoder
from ivcp.models.path import check_model_source
from ivcp.models.quantization import bitsandbytes_config, keep_differentiable
from ivcp.models.source import local_model
from ivcp.models.towers import vision_tower_of
from ivcp.models.vision.attention import batch_vision_attention
from ivcp.models.vision.layers import replace_slow_layers
from ivcp.settings import MethodConfig, ModelConfig, RunConfig

_ATTENTION = {"auto": None, "disabled": "eager", "sdpa": "sdpa", "fa2": "flash_attention_2"}


class AttentionError(RuntimeError):
    """An attention implementation that this machine does not have; the message says what to do."""


def load_base_model(
    model_name_or_path: str | Path,
    *,
    settings: ModelConfig,
    dtype: torch.dtype = torch.float32,
    quantization: MethodConfig | None = None,
) -> Any:
    """A transformers image-text-to-text model, one that hears, or a text model, in evaluation mode.

    `quantization` quantizes the language model's linear layers, where its `quantization_bit` is set.

    Raises:
        FileNotFoundError: `model_name_or_path` is a path or an address without a model.
        PermissionError, ConnectionError, RegistryError: its address cannot be read.
        HubError: the hub does not give the model.
        BaseFilesError: files of its weights are missing or damaged.
        AttentionError: `flash_attn: fa2` without the package or without a GPU.
        UnsupportedModelError: the model reads images and no videos, or is an encoder-decoder.
        QuantizationError: the weights cannot be quantized here.
    """
    check_model_source(model_name_or_path, revision=settings.model_revision, cache_dir=settings.cache_dir)
    check_attention(settings)
    name = local_model(model_name_or_path)
    if Path(name).is_dir():
        check_weights(Path(name), called=None if name == str(model_name_or_path) else str(model_name_or_path))
    config = read_configuration(name, settings)
    check_architecture(config, name)
    quantized = (
        {"quantization_config": bitsandbytes_config(config, quantization, dtype)}
        if quantization and quantization.quantization_bit
        else {}
    )
    # ZeRO-3 has some models draw weights before they are read: what a stage adds then would start elsewhere.
    with torch.random.fork_rng(devices=[]), whole_shapes_compared():
        model = auto_class(config).from_pretrained(
            name,
            config=config,
            attn_implementation=_ATTENTION[settings.flash_attn],
            dtype=dtype,
            revision=settings.model_revision,
            cache_dir=settings.cache_dir,
            trust_remote_code=settings.trust_remote_code,
            **quantized,
        )
    check_decoder(model, name)
    tower = vision_tower_of(model)
    if tower is not None:
        batch_vision_attention(tower)
        replace_slow_layers(tower)
    if quantized:
        keep_differentiable(model)
    return model.eval()


def model_without_weights(directory: Path, settings: ModelConfig) -> Any:
    """The model that a directory's configuration describes, on the device `meta`: what has no weights costs nothing."""
    config = read_configuration(str(directory), settings)
    with torch.device("meta"):
        return auto_class(config).from_config(
            config, attn_implementation=_ATTENTION["sdpa"], trust_remote_code=settings.trust_remote_code
        )


def check_attention(settings: ModelConfig) -> None:
    """Checks that this machine has the attention that `flash_attn` names.

    Raises:
        AttentionError: it does not.
    """
    if settings.flash_attn != "fa2":
        return
    if importlib.util.find_spec("flash_attn") is None:
        raise AttentionError("flash_attn = fa2 needs the package flash-attn: pip install flash-attn, or set it to auto")
    if not torch.cuda.is_available():
        raise AttentionError("flash_attn = fa2 runs on a GPU only, there is none here: set it to auto")


def without_training_attention(settings: ModelConfig) -> ModelConfig:
    """The settings of a model that is not trained: FlashAttention-2 is of no use to it.

    It wants half precision and a GPU, which neither evaluation nor a merge nor a predictor need have; a file of
    settings that names it is theirs, too.
    """
    return settings.model_copy(update={"flash_attn": "auto"}) if settings.flash_attn == "fa2" else settings


def training_dtype(config: RunConfig) -> torch.dtype:
    """Precision of the weights: bfloat16 with `bf16` where none of them trains, else float32."""
    method = config.method
    is_decoder_only = method.finetuning_type == "freeze" and method.freeze_trainable_layers == 0
    is_frozen = method.freeze_vision_tower and method.freeze_multi_modal_projector
    keeps_weights = method.finetuning_type == "lora" or (is_decoder_only and is_frozen)
    return torch.bfloat16 if config.train.bf16 and keeps_weights else torch.float32
