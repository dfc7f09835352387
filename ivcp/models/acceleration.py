"""Faster code for the language model, where the machine and the data allow it."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ivcp.settings import ConfigError, SpeedConfig
from ivcp.torchvision_compat import register_missing_operators

register_missing_operators()

from transformers.integrations.liger import apply_liger_kernel  # noqa: E402
from transformers.utils import is_liger_kernel_available  # noqa: E402

log = logging.getLogger(__name__)

_LIGER_KERNELS = {"cross_entropy": False, "fused_linear_cross_entropy": False}
"""Liger's losses are of vocabulary logits, which are never computed here; its norms, rotary and MLP kernels stay."""


def accelerate_language_model(model: Any, speed: SpeedConfig, *, lengths: NDArray[np.int64]) -> None:
    """Applies `enable_liger_kernel`, `torch_compile`, and what is always worth it, to a transformers model; `lengths`
    are the tokens of the training samples.

    Raises:
        ConfigError: Liger's package, a GPU or a compiler is missing.
    """
    replace_slow_lora(model)
    check_acceleration(speed)
    if speed.enable_liger_kernel:
        apply_liger_kernel(model, _LIGER_KERNELS)
    if speed.torch_compile:
        if lengths.min() != lengths.max():
            log.warning(
                "torch_compile: clips have %d to %d tokens and batches as many shapes: the first steps compile again, "
                "later ones run code for any shape, which is slower; it is worth it where all clips have one length",
                *(lengths.min(), lengths.max()),
            )
        compile_layers(model)


def check_acceleration(speed: SpeedConfig) -> None:
    """Checks that this machine has what `enable_liger_kernel` and `torch_compile` need.

    Raises:
        ConfigError: it does not.
    """
    if speed.enable_liger_kernel:
        _check_liger()
    if speed.torch_compile:
        _check_compiler()


def compile_layers(model: Any, *, backend: str = "inductor") -> None:
    """Compiles the layers of a transformers model's language model, in place; names of weights stay as they are.

    Layers share their code, so that one is compiled for all (PyTorch's "regional compilation"). Nothing is compiled
    before the first step.
    """
    for layer in model.get_decoder().layers:
        layer.compile(backend=backend)


class LoraUp(nn.Linear):
    """LoRA's second matrix, multiplied in the order that is fast on a CPU.

    Its weight is (out_features, rank). Gradients of a product with a matrix that narrow take MKL several times longer
    where the narrow side is the columns', as nn.Linear has it, than where it is the rows'; copying the weight costs
    nothing beside them.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(..., rank) → (..., out_features)."""
        if self.weight.device.type != "cpu":
            return super().forward(input)
        return input @ self.weight.t().contiguous()


def replace_slow_lora(model: nn.Module) -> None:
    """Puts `LoraUp` in place of the layers that peft made; weights are kept, not copied."""
    for name, adapters in model.named_modules():
        if name.endswith("lora_B"):
            for layer in adapters.children():
                if type(layer) is nn.Linear and layer.bias is None:
                    layer.__class__ = LoraUp


def _check_compiler() -> None:
    """inductor writes C++ for a CPU; for a GPU, Triton compiles its launchers in C."""
    if torch.cuda.is_available():
        language, names = "C", [os.environ["CC"]] if "CC" in os.environ else ["gcc", "clang"]
    else:
        language, names = "C++", [os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")]
    if not any(map(shutil.which, names)):
        raise ConfigError(
            f"torch_compile needs a {language} compiler on the machine that trains: there is no {' or '.join(names)}; "
            f"install one (Debian: apt-get install {'gcc' if language == 'C' else 'g++'}), or remove torch_compile"
        )


def _check_liger() -> None:
    if not is_liger_kernel_available():
        raise ConfigError("enable_liger_kernel needs the package liger-kernel: pip install liger-kernel, or remove it")
    if not torch.cuda.is_available():
        raise ConfigError("enable_liger_kernel: its kernels run on a GPU only, there is none here: remove it")
