"""Model directories of language stages that were never trained but say they were: real files, real code path."""

from __future__ import annotations

from pathlib import Path

import torch

from ivcp.data.seen_clips import SeenClips
from ivcp.models.load import load_base_model
from ivcp.records import Message
from ivcp.stages.directory import save_directory
from ivcp.stages.model_info import ModelInfo
from ivcp.stages.registry import stage_of
from tests.language import language_config, processor_of
from tests.tiny_families import build_tiny_family

PROMPT = (Message(role="user", content="<video>What is to be seen?"),)


def save_tiny_language_model(directory: Path, stage_name: str, *, family: str = "qwen2_vl") -> Path:
    """Writes a model directory of a tiny model of `family`, for clips of four 32x32 frames."""
    build_tiny_family(directory, family)
    config = language_config(directory, stage_name)
    stage, processor = stage_of(config), processor_of(directory)
    torch.manual_seed(0)
    module = stage.module(load_base_model(directory, settings=config.model), trains=False)
    save_directory(
        directory,
        stage=stage,
        module=module,
        processor=processor,
        info=ModelInfo(trained_steps=1, prompt=PROMPT, data_fingerprint="data", prepared_fingerprint="prepared"),
        seen=SeenClips(),
        with_backbone=False,
    )
    return directory
