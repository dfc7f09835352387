"""The base model of a run: there, whole, and of a kind that can be trained as asked."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from ivcp.models.base_files import check_base_files
from ivcp.models.configuration import read_configuration
from ivcp.models.hub import is_offline
from ivcp.models.path import check_model_path, check_model_source, looks_local
from ivcp.models.source import check_remote_weights, local_model
from ivcp.settings import ModelConfig, RunConfig
from ivcp.settings.places import is_remote_model
from ivcp.stages.registry import stage_of

_SMALL_FILES = ["*.json", "*.jinja", "*.txt", "*.model"]


def check_base(model: ModelConfig, *, with_weights: bool, has_media: bool = True) -> None:
    """Checks the base model's files, without torch: those of a folder or at an address, or whether the hub gives them.

    Without `has_media` it may be a text model.

    Raises:
        ValueError: no base model is named.
        FileNotFoundError: it is no model directory.
        PermissionError, ConnectionError, RegistryError: its address cannot be read.
        HubError: the hub does not give it.
        BaseFilesError: its files are missing or damaged.
    """
    name = model.required_name
    check_files = partial(check_base_files, has_own_code=model.trust_remote_code, has_media=has_media)
    check_model_source(name, revision=model.model_revision, cache_dir=model.cache_dir)
    if is_remote_model(name):
        copy = Path(local_model(name, with_weights=False))
        check_files(copy, with_weights=False, called=name)
        if with_weights:
            check_remote_weights(name)
    elif Path(name).is_dir():
        check_files(Path(name), with_weights=with_weights)
    else:
        check_files(_small_files(model), with_weights=False)


def is_elsewhere(model: ModelConfig) -> bool:
    """Whether the base model is a path that this machine does not have: only another one can check it."""
    name = model.model_name_or_path
    return name is None or (looks_local(name) and not Path(name).exists())


def check_method(config: RunConfig) -> None:
    """Checks architecture, stage and `finetuning_type` against the base model's configuration; no weights are loaded.

    Raises:
        UnsupportedModelError: the model reads no videos.
        UnsupportedMethodError: it has no such layers to train.
        ConfigError: the stage's settings do not fit it.
    """
    from ivcp.models.adapters import check_method as check_layers

    stage = stage_of(config)
    described, model = _described(config.model)
    stage.check_base(described)
    check_layers(model, config.method)


def num_weights(model: ModelConfig) -> int:
    """Of the base model, from its configuration alone."""
    return sum(weight.numel() for weight in _described(model)[1].parameters())


def _described(model: ModelConfig) -> tuple[Any, Any]:
    """A base model's configuration, and the model without weights."""
    import torch

    from ivcp.models.auto_class import auto_class
    from ivcp.models.families import check_architecture, check_decoder

    name = model.required_name
    check_model_path(name)
    described = read_configuration(name, model)
    check_architecture(described, name)
    with torch.device("meta"):
        made = auto_class(described).from_config(described, trust_remote_code=model.trust_remote_code)
    check_decoder(made, name)
    return described, made


def _small_files(model: ModelConfig) -> Path:
    """A folder with what a model of the hub has besides its weights, from the cache where it is there."""
    from huggingface_hub import snapshot_download

    return Path(
        snapshot_download(
            model.required_name,
            revision=model.model_revision,
            cache_dir=model.cache_dir,
            allow_patterns=_SMALL_FILES,
            local_files_only=is_offline(),
        )
    )
