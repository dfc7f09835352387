"""A classifier of a tiny family with a random decoder, and its clips: for graphs of it."""

from pathlib import Path

import numpy as np
import torch

from ivcp.data.prepared.sample import Sample
from ivcp.data.seen_clips import SeenClips
from ivcp.models.load import load_base_model
from ivcp.models.processor import Processor
from ivcp.records import Labels, Message
from ivcp.settings import config_from_settings
from ivcp.stages.action_cls.decoder import ActionDecoder, DecoderShape
from ivcp.stages.action_cls.module import ActionClassifier
from ivcp.stages.directory import save_directory
from ivcp.stages.loaded_model import LoadedModel
from ivcp.stages.model_info import ModelInfo
from ivcp.stages.registry import stage_of
from tests.samples import PROMPT, sample_of
from tests.tiny_families import build_tiny_family

NUM_CLASSES = 5


def save_tiny_model(directory: Path, family: str, *, decoder: str = "linear") -> Path:
    """Writes a model directory that says it was trained; its clips have at most 48x48 pixels."""
    build_tiny_family(directory, family)
    config = config_from_settings(
        {
            "model_name_or_path": str(directory),
            "video_num_frames": 4,
            "video_min_pixels": 1024,
            "video_max_pixels": 2304,
        }
    )
    processor = Processor.from_pretrained(directory, video=config.video, special_tokens=("<ACTION>",))
    model = load_base_model(directory, settings=config.model)
    width = model.config.get_text_config().hidden_size
    layers = {"decoder_hidden_size": width, "num_transformer_layers": 1, "num_heads": 2}
    shape = DecoderShape(
        decoder_type=decoder,
        hidden_size=width,
        num_classes=NUM_CLASSES,
        **({} if decoder == "linear" else layers),
    )
    torch.manual_seed(0)
    save_directory(
        directory,
        stage=stage_of(config),
        module=ActionClassifier(
            model,
            ActionDecoder(shape),
            labels=Labels(label_names=tuple("abcde")),
            action_token_id=processor.token_id("<ACTION>"),
        ),
        processor=processor,
        info=ModelInfo(trained_steps=1, prompt=PROMPT, data_fingerprint="data", prepared_fingerprint="prepared"),
        seen=SeenClips(),
        with_backbone=False,
    )
    return directory


def clip_of(model: LoadedModel, number: int, *, size=(32, 32), frames=4, question: str | None = None) -> Sample:
    """A clip of noise with the class that the number says."""
    pixels = np.random.default_rng(number).integers(0, 256, (frames, *size, 3), dtype=np.uint8)
    messages = PROMPT if question is None else (Message(role="user", content=f"<video>{question} <ACTION>"),)
    return sample_of(
        model.processor,
        pixels,
        label=number % NUM_CLASSES,
        sample_id=f"clip {number}",
        source=f"{number}.mp4",
        messages=messages,
        seconds_per_frame=0.5,
    )
