"""A small classifier directory that was never trained but says it was: real files, real code path."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ivcp.data.seen_clips import SeenClips
from ivcp.demo.tiny_model import build_tiny_model
from ivcp.models.adapters import prepare_backbone
from ivcp.models.load import load_base_model
from ivcp.models.processor import Processor
from ivcp.records import Labels, Message
from ivcp.settings import RunConfig, config_from_settings
from ivcp.stages.action_cls.decoder import ActionDecoder, DecoderShape
from ivcp.stages.action_cls.module import ActionClassifier
from ivcp.stages.directory import save_directory
from ivcp.stages.model_info import ModelInfo
from ivcp.stages.registry import stage_of

LABELS = Labels(label_names=("sit_down", "stand_up", "wave"), reversed_pairs=(("sit_down", "stand_up"),))
PROMPT = (
    Message(role="system", content="You watch people."),
    Message(role="user", content="<video>What is the person doing? <ACTION>"),
)


FRAMES = {"video_num_frames": 4, "video_min_pixels": 1024, "video_max_pixels": 1024}


def save_tiny_classifier(
    directory: Path,
    *,
    labels: Labels = LABELS,
    seed: int = 0,
    seen: SeenClips | None = None,
    frames: Mapping[str, Any] = FRAMES,
) -> Path:
    """Writes a model directory of a tiny Qwen2-VL with a random decoder, for clips of four 32x32 frames.

    It has seen nothing, unless `seen` says otherwise; `frames` are other settings of how it samples and sizes them.
    """
    build_tiny_model(directory, warm_up=False, seed=seed)
    config = config_from_settings({"model_name_or_path": str(directory), **frames})
    _save(directory, config, load_base_model(directory, settings=config.model), labels=labels, seed=seed, seen=seen)
    return directory


def save_tiny_adapter(
    directory: Path, *, base: Path, labels: Labels = LABELS, seed: int = 0, frames: Mapping[str, Any] = FRAMES
) -> Path:
    """Writes an adapter directory over `base`, which becomes a tiny Qwen2-VL: random LoRA matrices and decoder."""
    build_tiny_model(base, warm_up=False)
    config = config_from_settings({"model_name_or_path": str(base), "lora_rank": 4, **frames})
    model = prepare_backbone(load_base_model(base, settings=config.model), config.method)
    torch.manual_seed(seed)
    for name, matrix in model.named_parameters():
        if "lora_B" in name:  # zeros, with which an adapter changes nothing
            torch.nn.init.normal_(matrix, std=0.2)
    _save(directory, config, model, labels=labels, seed=seed, with_backbone=True)
    return directory


def _save(
    directory: Path,
    config: RunConfig,
    model: Any,
    *,
    labels: Labels,
    seed: int,
    seen: SeenClips | None = None,
    with_backbone: bool = False,
) -> None:
    processor = Processor.from_pretrained(config.model.required_name, video=config.video, special_tokens=("<ACTION>",))
    torch.manual_seed(seed)
    shape = DecoderShape(
        decoder_type="linear", hidden_size=model.config.get_text_config().hidden_size, num_classes=labels.num_classes
    )
    token_id = processor.token_id("<ACTION>")
    save_directory(
        directory,
        stage=stage_of(config),
        module=ActionClassifier(model, ActionDecoder(shape), labels=labels, action_token_id=token_id),
        processor=processor,
        info=ModelInfo(trained_steps=1, prompt=PROMPT, data_fingerprint="data", prepared_fingerprint="prepared"),
        seen=seen or SeenClips(),
        with_backbone=with_backbone,
    )
