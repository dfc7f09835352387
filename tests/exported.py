"""Model directories as export writes them, of tiny models with random weights: no training is needed."""

from pathlib import Path

import torch

from ivcp.data.seen_clips import SeenClips
from ivcp.models.load import load_base_model
from ivcp.models.processor import Processor
from ivcp.records import Labels, Message
from ivcp.settings import config_from_settings
from ivcp.stages.action_cls.decoder import ActionDecoder, DecoderShape
from ivcp.stages.action_cls.module import ActionClassifier
from ivcp.stages.directory import save_directory
from ivcp.stages.model_info import ModelInfo
from ivcp.stages.registry import stage_of
from tests.tiny_families import build_tiny_family

LABELS = Labels(label_names=("sit_down", "stand_up", "wave"))
PROMPT = (
    Message(role="system", content='You watch "people" {{ closely }}.'),
    Message(role="user", content="<video>What is the person doing? <ACTION>"),
)


def save_exported(directory: Path, family: str = "qwen2_vl", *, max_shard_size: str = "1GB", **settings) -> Path:
    """Writes the merged directory of a tiny model with a random decoder, for clips of four frames of 1024 pixels."""
    base = build_tiny_family(directory.with_name(f"{directory.name}-base"), family)
    config = config_from_settings(
        {"model_name_or_path": str(base), "video_num_frames": 4, "video_min_pixels": 1024, "video_max_pixels": 4096}
        | settings
    )
    stage = stage_of(config)
    processor = Processor.from_pretrained(base, video=config.video, special_tokens=stage.special_tokens)
    model = load_base_model(base, settings=config.model)
    torch.manual_seed(0)
    hidden_size = model.config.get_text_config().hidden_size
    shape = DecoderShape.from_settings(config.action_cls, hidden_size=hidden_size, num_classes=LABELS.num_classes)
    module = ActionClassifier(
        model, ActionDecoder(shape), labels=LABELS, action_token_id=processor.token_id("<ACTION>")
    )
    with torch.no_grad():
        module.action_token_row.add_(torch.randn(hidden_size) * 0.1)
    stage.fold(model, module, processor)
    model.save_pretrained(directory, max_shard_size=max_shard_size)
    info = ModelInfo(trained_steps=1, prompt=PROMPT, data_fingerprint="data", prepared_fingerprint="prepared")
    save_directory(
        directory, stage=stage, module=module, processor=processor, info=info, seen=SeenClips(), with_backbone=False
    )
    return directory
