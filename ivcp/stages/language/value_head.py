"""The value head of a reward model in its directory, under the names that LLaMA-Factory and TRL gave it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

VALUE_HEAD_FILE = "value_head.safetensors"
_OURS, _THEIRS = "value_head.", "v_head.summary."


_BIAS = "bias"
"""Theirs have one. A constant changes no comparison: a reward model learns none, and writes a 0."""


def save_value_head(directory: Path, weights: Mapping[str, Tensor]) -> None:
    """Writes it; `weights` are the module's by the names of its `state_dict`."""
    head = {
        _THEIRS + name.removeprefix(_OURS): value.detach().cpu().contiguous()
        for name, value in weights.items()
        if name.startswith(_OURS)
    }
    save_file({_THEIRS + _BIAS: torch.zeros(1)} | head, directory / VALUE_HEAD_FILE)


def read_value_head(directory: Path, *, has_bias: bool) -> dict[str, Tensor]:
    """Its weights by the names of the module's `state_dict`; `has_bias` says whether the module's head has one."""
    weights = load_file(directory / VALUE_HEAD_FILE)
    return {
        _OURS + name.removeprefix(_THEIRS): value
        for name, value in weights.items()
        if has_bias or not name.endswith(_BIAS)
    }
