"""Quantized weights of a frozen backbone (QLoRA), by bitsandbytes."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import nn

from ivcp.models.auto_class import auto_class
from ivcp.settings import MethodConfig


class QuantizationError(RuntimeError):
    """Quantized weights that this machine cannot hold; the message says what to do."""


def bitsandbytes_config(config: Any, method: MethodConfig, dtype: torch.dtype) -> Any:
    """How bitsandbytes quantizes the linear layers of the language model; vision tower and projector stay exact."""
    from transformers import BitsAndBytesConfig

    if importlib.util.find_spec("bitsandbytes") is None:
        raise QuantizationError(
            f"quantization_bit = {method.quantization_bit} needs the package bitsandbytes: pip install bitsandbytes, "
            "or remove quantization_bit"
        )
    with torch.device("meta"):  # only the names of its modules are of interest
        model = auto_class(config).from_config(config)
    language_model = set(model.get_decoder().modules())
    exact = [
        name for name, module in model.named_modules() if isinstance(module, nn.Linear) and module not in language_model
    ]
    return BitsAndBytesConfig(
        load_in_4bit=method.quantization_bit == 4,
        load_in_8bit=method.quantization_bit == 8,
        bnb_4bit_quant_type=method.quantization_type,
        bnb_4bit_use_double_quant=method.double_quantization,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=exact,
    )


def keep_differentiable(model: nn.Module) -> None:
    """Keeps 4-bit layers on the path that gradients pass, on every CPU.

    Where a CPU has AVX512-BF16, bitsandbytes 0.50 repacks a layer's weights in the first forward pass of an evaluation,
    for a kernel that computes in bfloat16 and has no gradient; a training would silently learn nothing
    through the layer.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        return
    from bitsandbytes.nn.modules import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False
