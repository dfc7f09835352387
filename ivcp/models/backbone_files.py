"""The backbone's weights in an adapter or model directory: an adapter's, those that `freeze` trained, or all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from ivcp.distributed.weights import loading_replicated, whole_shapes_compared, write_weights
from ivcp.models.backbone import language_model_of
from ivcp.models.configuration import without_kernels
from ivcp.models.load import load_base_model
from ivcp.settings import MethodConfig, ModelConfig

ADAPTER_CONFIG = "adapter_config.json"
TRAINED_WEIGHTS = "trained_weights.safetensors"
"""The backbone's weights that training changed, by name; the others are the base model's."""
MODEL_CONFIG = "config.json"
BACKBONE_FILES = (ADAPTER_CONFIG, TRAINED_WEIGHTS, MODEL_CONFIG)
"""One of these says how the backbone's weights are stored."""


class ModelFilesError(ValueError):
    """A directory that is no complete, trained model; the message says what is missing."""


def save_backbone(
    backbone: Any, directory: Path, *, weights: Mapping[str, torch.Tensor], only_trained: bool = False
) -> None:
    """Writes the backbone's weights: the adapter's, or all; `only_trained` writes those that training changes.

    `weights` are gathered, by the names of its `state_dict`.
    """
    model = language_model_of(backbone)
    if model is not backbone:
        backbone.save_pretrained(directory, state_dict=dict(weights), save_embedding_layers=False)
    elif only_trained:
        trained = [name for name, value in model.named_parameters() if value.requires_grad]
        save_file({name: weights[name].detach().cpu().contiguous() for name in trained}, directory / TRAINED_WEIGHTS)
    else:
        with whole_shapes_compared():
            model.save_pretrained(directory, state_dict=dict(weights))


def load_backbone_weights(backbone: Any, directory: Path) -> None:
    """Puts the weights that `save_backbone` wrote into a backbone of the same kind, sharded or not.

    Raises:
        ModelFilesError: they belong to another model, or to another `finetuning_type`.
    """
    model = language_model_of(backbone)
    is_adapter = (directory / ADAPTER_CONFIG).is_file()
    if is_adapter != (model is not backbone):
        kind = "a LoRA adapter" if is_adapter else "full weights"
        raise ModelFilesError(
            f"{directory} holds {kind}, and this run trains in another way: set the finetuning_type of that training"
        )
    if is_adapter:
        weights = _adapter_weights(backbone, directory)
    elif (directory / TRAINED_WEIGHTS).is_file():
        weights = load_file(directory / TRAINED_WEIGHTS)
    else:
        with loading_replicated():
            config = without_kernels(model.config)  # that of the directory is anybody's
            weights = type(model).from_pretrained(directory, config=config, dtype=model.dtype).state_dict()
    try:
        write_weights(backbone, weights)
    except ValueError as error:
        raise ModelFilesError(f"{directory}: adapter and base model do not belong together: {error}") from error


def load_backbone(
    directory: Path, settings: ModelConfig, *, dtype: torch.dtype, quantization: MethodConfig | None = None
) -> Any:
    """The backbone of a directory: the model in it, or the base model that `settings` name with what training changed.

    Raises:
        ModelFilesError: `settings` name no base model, or one that the weights do not belong to.
        FileNotFoundError: the base model is not where `settings` say.
    """
    if (directory / MODEL_CONFIG).is_file():
        return load_base_model(directory, settings=settings, dtype=dtype)
    if settings.model_name_or_path is None:
        raise ModelFilesError(f"{directory} names no model_name_or_path: give the base model")
    try:
        base = load_base_model(settings.model_name_or_path, settings=settings, dtype=dtype, quantization=quantization)
    except OSError as error:
        raise FileNotFoundError(
            f"{directory} is an adapter of the base model {settings.model_name_or_path}, which cannot be read from "
            f"{Path.cwd()}: {error}"
        ) from error
    if (directory / TRAINED_WEIGHTS).is_file():
        load_backbone_weights(base, directory)
        return base
    from peft import PeftModel

    return PeftModel.from_pretrained(base, str(directory)).eval()


def weights_below(module: str, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The entries of a `state_dict` that belong to a child module, by its own names."""
    prefix = f"{module}."
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def _adapter_weights(backbone: Any, directory: Path) -> dict[str, torch.Tensor]:
    """peft's weights of a directory by the names that they have in the peft model."""
    from peft import get_peft_model_state_dict, load_peft_weights

    names = [name for name, _ in backbone.named_parameters()]
    # peft renames what it saves: let it rename numbers, and look where they went.
    numbers = {name: torch.tensor(number) for number, name in enumerate(names)}
    renamed = get_peft_model_state_dict(backbone, state_dict=numbers, save_embedding_layers=False)
    name_of = {saved: names[int(number)] for saved, number in renamed.items()}
    weights = load_peft_weights(str(directory), device="cpu")
    if weights.keys() != name_of.keys():
        odd = sorted(weights.keys() ^ name_of.keys())
        raise ModelFilesError(
            f"{directory} does not fit this run's LoRA settings: {len(odd)} weights are in one only, as {odd[0]}"
        )
    return {name_of[name]: value for name, value in weights.items()}
