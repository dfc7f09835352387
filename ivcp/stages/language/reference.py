"""The model that a preference loss compares with: the base under the adapter, a copy of the start, or another model."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from ivcp.distributed.weights import loading_replicated
from ivcp.models.backbone import language_model_of
from ivcp.models.backbone_files import load_backbone
from ivcp.models.families import vision_tensors
from ivcp.models.load import load_base_model, training_dtype
from ivcp.models.source import local_model
from ivcp.records import RUN_CONFIG_FILE
from ivcp.settings import ConfigError, RunConfig, read_model_config
from ivcp.stages.model_info import is_model_directory

log = logging.getLogger(__name__)


class Reference(Protocol):
    """A model without gradients."""

    def computing(self, backbone: Any, device: torch.device) -> Any:
        """A context that gives its backbone on a device, in evaluation mode; `backbone` is the one that trains."""

    def sees_alike(self, backbone: Any) -> bool:
        """Whether features of the vision tower that trains with `backbone` are its own at every step."""

    def backbone_of(self, backbone: Any) -> Any:
        """Its own backbone, or `backbone`, the one that trains."""

    def weights(self, backbone: Any) -> Iterator[tuple[str, Tensor]]:
        """All that its answers depend on, by name."""


class WithoutAdapter:
    """The base model: what trains, with its adapter switched off."""

    @contextmanager
    def computing(self, backbone: Any, device: torch.device) -> Iterator[Any]:
        """The same backbone; behind the block its adapter is on again."""
        trains = backbone.training
        backbone.eval()
        try:
            with torch.no_grad(), backbone.disable_adapter():
                yield backbone
        finally:
            backbone.train(trains)

    def sees_alike(self, backbone: Any) -> bool:
        """Where no adapter is in the tower."""
        return not _vision_trains(backbone)

    def backbone_of(self, backbone: Any) -> Any:
        """The one that trains."""
        return backbone

    def weights(self, backbone: Any) -> Iterator[tuple[str, Tensor]]:
        """Those that lie under the adapter, whatever it covers."""
        for name, value in _tensors(language_model_of(backbone)):
            if "lora_" not in name:
                yield name.replace(".base_layer", ""), value


class FrozenModel:
    """A model of its own. It is no part of the module: neither optimizer nor checkpoints know it."""

    def __init__(self, backbone: Any) -> None:
        self._backbone = backbone.requires_grad_(False).eval()

    @classmethod
    def copy_of(cls, backbone: Any) -> FrozenModel:
        """A model as it is now; what does not train is not held twice."""
        frozen = [*(each for each in backbone.parameters() if not each.requires_grad), *backbone.buffers()]
        return cls(copy.deepcopy(backbone, {id(tensor): tensor for tensor in frozen}))

    @classmethod
    def of(cls, name: str, config: RunConfig) -> FrozenModel:
        """The model of a directory that training or export wrote, or a base model.

        Raises:
            FileNotFoundError: there is none.
            ModelFilesError: its directory is incomplete.
        """
        directory, dtype = Path(local_model(name)), training_dtype(config)
        with loading_replicated():
            if not is_model_directory(directory):
                return cls(load_base_model(name, settings=config.model, dtype=dtype))
            settings = read_model_config(directory / RUN_CONFIG_FILE, machine=config.model)
            return cls(load_backbone(directory, settings.model, dtype=dtype))

    @contextmanager
    def computing(self, backbone: Any, device: torch.device) -> Iterator[Any]:
        """The model, which stays on the device."""
        self._backbone.to(device)
        with torch.no_grad():
            yield self._backbone

    def sees_alike(self, backbone: Any) -> bool:
        """Where both towers have the same weights, and neither trains."""
        if _vision_trains(backbone):
            return False
        ours, theirs = (dict(vision_tensors(language_model_of(each))) for each in (self._backbone, backbone))
        return ours.keys() == theirs.keys() and all(
            theirs[name] is value or torch.equal(theirs[name].cpu(), value.cpu()) for name, value in ours.items()
        )

    def backbone_of(self, backbone: Any) -> Any:
        """Its own."""
        return self._backbone

    def weights(self, backbone: Any) -> Iterator[tuple[str, Tensor]]:
        """Its own."""
        yield from _tensors(language_model_of(self._backbone))

    def check_fits(self, backbone: Any) -> None:
        """Checks that both models are of one family, and know the same number of tokens.

        Raises:
            ConfigError: they do not.
        """
        ours, theirs = (language_model_of(each).config.model_type for each in (self._backbone, backbone))
        if ours != theirs:
            raise ConfigError(
                f"ref_model is a {ours} model, which cannot see what a {theirs} model is shown: choose a ref_model of "
                "the same family"
            )
        sizes = [language_model_of(each).config.get_text_config().vocab_size for each in (self._backbone, backbone)]
        if sizes[0] != sizes[1]:
            raise ConfigError(
                f"ref_model has a vocabulary of {sizes[0]} tokens, the model that trains one of {sizes[1]}: choose a "
                "ref_model with the same tokenizer"
            )


def reference_of(config: RunConfig, backbone: Any) -> Reference:
    """The reference that the settings ask for, of a backbone with the weights that it starts with.

    Raises:
        ConfigError: it cannot be held here, or is another kind of model.
        FileNotFoundError: `ref_model` does not exist.
    """
    if config.language.ref_model:
        reference = FrozenModel.of(config.language.ref_model, config)
        reference.check_fits(backbone)
        return reference
    if config.method.finetuning_type == "lora":
        if start := config.method.adapter_name_or_path:
            log.warning(
                "the reference is the base model, without what %s has learned: to compare with that, export it and set "
                "ref_model to the merged model, or model_name_or_path in place of the adapter",
                start,
            )
        return WithoutAdapter()
    if is_deepspeed_zero3_enabled():
        raise ConfigError(
            f"finetuning_type = {config.method.finetuning_type} with DeepSpeed ZeRO-3: the start that the model is "
            "compared with lies in pieces; set ref_model to the model that the training starts from"
        )
    return FrozenModel.copy_of(backbone)


def _tensors(model: Any) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _vision_trains(backbone: Any) -> bool:
    return any(tensor.requires_grad for _, tensor in vision_tensors(language_model_of(backbone)))
