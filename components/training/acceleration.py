"""Compiled and fused code for the language model, where the machine and the data allow it."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.integrations.liger import apply_liger_kernel
from transformers.utils import is_liger_kernel_available

from components.action_model import ActionClassifier, language_model_of
from components.config_files import ConfigError
from components.training_config import SpeedConfig

log = logging.getLogger(__name__)

_LIGER_KERNELS = {"cross_entropy": False, "fused_linear_cross_entropy": False}
"""Liger's losses are of vocabulary logits, which are never computed here; its norms, rotary and MLP kernels stay."""


def accelerate_language_model(classifier: ActionClassifier, speed: SpeedConfig, *, lengths: NDArray[np.int64]) -> None:
    """Applies `enable_liger_kernel` and `torch_compile`; `lengths` are the tokens of the training clips.

    Raises:
        ConfigError: Liger's package or a GPU is missing.
    """
    model = language_model_of(classifier.backbone)
    if speed.enable_liger_kernel:
        _check_liger()
        apply_liger_kernel(model, _LIGER_KERNELS)
    if speed.torch_compile:
        if lengths.min() != lengths.max():
            log.warning(
                "torch_compile: clips have %d to %d tokens and batches as many shapes: the first steps compile anew, "
                "later ones run code for any shape, which is slower; it is worth it where all clips have one length",
                *(lengths.min(), lengths.max()),
            )
        compile_layers(model)


def compile_layers(model: Any, *, backend: str = "inductor") -> None:
    """Compiles the layers of a transformers model's language model, in place; names of weights stay as they are.

    Layers share their code, so that one is compiled for all (PyTorch's "regional compilation"). Nothing is compiled
    before the first step.
    """
    for layer in model.get_decoder().layers:
        layer.compile(backend=backend)


def _check_liger() -> None:
    if not is_liger_kernel_available():
        raise ConfigError("enable_liger_kernel needs the package liger-kernel: pip install liger-kernel, or remove it")
    if not torch.cuda.is_available():
        raise ConfigError("enable_liger_kernel: its kernels run on a GPU only, there is none here: remove it")
