"""A base model that nothing was trained into, as a loaded model that writes."""

from __future__ import annotations

from pathlib import Path

import torch

from ivcp.models.backbone_files import MODEL_CONFIG
from ivcp.models.load import load_base_model
from ivcp.models.processor import Processor
from ivcp.records import RUN_CONFIG_FILE
from ivcp.settings import RunConfig, save_model_config
from ivcp.stages.loaded_model import LoadedModel
from ivcp.stages.model_info import MODEL_INFO_FILE, ModelInfo, is_model_directory
from ivcp.stages.protocol import Stage
from ivcp.stages.registry import stage_of

_STAGE = "sft"
"""A base model writes as what this stage trains does, before its first step."""


def is_base_model(directory: Path) -> bool:
    """Whether a folder holds a model of transformers, and nothing that training or export wrote."""
    is_ours = is_model_directory(directory) or (directory / RUN_CONFIG_FILE).is_file()
    return (directory / MODEL_CONFIG).is_file() and not is_ours


def load_base_directory(
    directory: Path, config: RunConfig, *, device: str = "cpu", dtype: torch.dtype | None = None
) -> LoadedModel:
    """The model of a folder, which sees videos as `config` says, in float32 unless `dtype` says otherwise.

    Raises:
        FileNotFoundError, BaseFilesError, UnsupportedModelError: as `load_base_model` says.
    """
    stage = _stage(directory, config)
    backbone = load_base_model(
        directory, settings=config.model, dtype=dtype or torch.float32, quantization=config.method
    )
    trusted = config.model.trust_remote_code
    processor = Processor.from_pretrained(directory, video=config.video, trust_remote_code=trusted)
    module = stage.restore(directory, backbone, processor).eval().to(device)
    return LoadedModel(stage, module, processor, _info(stage), directory, computes_as_trained=False)


def describe_base_model(directory: Path, config: RunConfig) -> None:
    """Writes what `config` says of a base model beside its tokenizer and processor, as training would."""
    stage = _stage(directory, config)
    save_model_config(stage.config, directory / RUN_CONFIG_FILE)
    _info(stage).write(directory / MODEL_INFO_FILE)


def _stage(directory: Path, config: RunConfig) -> Stage:
    method = config.method.model_copy(update={"stage": _STAGE})
    model = config.model.model_copy(update={"model_name_or_path": str(directory)})
    return stage_of(config.model_copy(update={"method": method, "model": model}))


def _info(stage: Stage) -> ModelInfo:
    prompt = stage.prompt_of(stage.smallest_prompt)
    return ModelInfo(trained_steps=0, prompt=prompt, data_fingerprint="", prepared_fingerprint="")
