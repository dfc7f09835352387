"""Real prepared clips on disk, and settings to train a tiny model on them."""

from pathlib import Path
from typing import Any

import numpy as np

from ivcp.data.prepared.sample import Sample
from ivcp.models.processor import Processor
from ivcp.records import Labels, PreparedIndex
from ivcp.settings import config_from_settings
from tests.prepared import write_shards
from tests.samples import PROMPT, sample_of
from tests.tiny_families import build_tiny_family

LABELS = Labels(label_names=("dark", "light", "half"))
SIZE = {"video_num_frames": 4, "video_min_pixels": 1024, "video_max_pixels": 1024}


def write_training_data(folder: Path, family: str = "qwen2_vl") -> Path:
    """Writes a base model and an index of 16 clips for training and 4 for validation; returns the index's path."""
    build_tiny_family(folder / "base", family)
    video = config_from_settings(SIZE).video
    processor = Processor.from_pretrained(folder / "base", video=video, special_tokens=("<ACTION>",))
    clips = [("train" if number < 16 else "val", brightness_clip(processor, number)) for number in range(20)]
    index = PreparedIndex(
        fingerprint="prepared",
        **write_shards(folder / "shards", clips),
        labels=LABELS,
        video=video,
        stage="action_cls",
        special_tokens=("<ACTION>",),
        prompts=(PROMPT,),
        num_clips={"train": 16, "val": 4},
        label_counts={"train": (6, 5, 5), "val": (1, 1, 2)},
        max_tokens=40,
        mean_tokens=40.0,
        data_fingerprint="data",
    )
    index.write(folder / "index.json")
    return folder / "index.json"


def brightness_clip(processor: Processor, number: int) -> Sample:
    rng, label = np.random.default_rng(number), number % 3
    frames = rng.integers(0, 60, (4, 32, 32, 3), dtype=np.uint8)
    if label:
        frames[:, :, : 32 // label] += np.uint8(180)
    return sample_of(
        processor, frames, label=label, sample_id=f"clips:{number}", source=f"{number}.mp4", seconds_per_frame=0.25
    )


def training_settings(folder: Path, output_dir: Path, **settings: Any) -> dict[str, Any]:
    """Settings of a short run: every step logged, a checkpoint and a validation every second one."""
    return {
        "model_name_or_path": str(folder / "base"),
        "output_dir": str(output_dir),
        "lora_rank": 4,
        "learning_rate": 3e-3,
        "max_steps": 4,
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 2,
        "logging_steps": 1,
        "save_steps": 2,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "val_size": 4,
        "ddp_timeout": 180000000,  # as the users' files have it
        "report_to": "none",
        **SIZE,
        **settings,
    }
