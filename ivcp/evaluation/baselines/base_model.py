"""The base model of a trained one, as it was before training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from peft import PeftModel

from ivcp.models.load import load_base_model, training_dtype, without_training_attention
from ivcp.records import Message
from ivcp.stages.loaded_model import LoadedModel


@contextmanager
def base_model_of(model: LoadedModel) -> Iterator[Any]:
    """Inside, the transformers model that `model` was trained from, on the same device and in the same precision.

    With an adapter it is the model itself with the adapter switched off. Else it is loaded anew, and the trained
    weights wait on the CPU meanwhile.

    Raises:
        FileNotFoundError, ConnectionError, HubError, BaseFilesError: it is not to be had here.
    """
    backbone = model.module.backbone
    if isinstance(backbone, PeftModel):
        with backbone.disable_adapter():
            yield backbone
        return
    config, device = model.config, model.compute.device
    model.module.to("cpu")
    try:
        loaded = load_base_model(
            config.model.required_name,
            settings=without_training_attention(config.model),
            dtype=training_dtype(config),
            quantization=config.method,
        )
        yield loaded.to(device)
    finally:
        model.module.to(device)


def without_tokens(messages: Sequence[Message], tokens: Sequence[str]) -> tuple[Message, ...]:
    """A conversation without a stage's special tokens, which the base model does not know."""
    texts = []
    for message in messages:
        text = message.content
        for token in tokens:
            text = text.replace(token, "")
        texts.append(Message(role=message.role, content=text.strip()))
    return tuple(texts)
