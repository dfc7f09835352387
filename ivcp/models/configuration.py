"""The configuration of a base model, as its files describe it, without what only whoever runs it may choose."""

from __future__ import annotations

import copy
from typing import Any

from ivcp.models.source import local_model
from ivcp.settings import ModelConfig


def read_configuration(name: str, settings: ModelConfig) -> Any:
    """transformers' configuration of a model directory, a model of the hub, or one at an address.

    Of a model that speaks too (Qwen2.5-Omni), that of its part which sees, hears and writes.

    Its attention is not taken over: a file may name any repository on the hub, whose code transformers would fetch and
    run. The same holds for modelling code, unless `settings` trust it.
    """
    from transformers import AutoConfig

    described = AutoConfig.from_pretrained(
        local_model(name, with_weights=False),
        revision=settings.model_revision,
        cache_dir=settings.cache_dir,
        trust_remote_code=settings.trust_remote_code,
    )
    thinks = "thinker_config" in described.sub_configs
    return without_kernels(described.thinker_config if thinks else described)


def without_kernels(described: Any) -> Any:
    """A copy of a configuration that leaves attention and experts to transformers' own choice."""
    copied = copy.deepcopy(described)
    _forget_kernels(copied)
    return copied


def _forget_kernels(described: Any) -> None:
    """In the parts too: each may name its own."""
    described._attn_implementation = None
    described._experts_implementation = None
    for name in described.sub_configs:
        part = getattr(described, name, None)
        if part is not None:
            _forget_kernels(part)
