"""A tiny base model of a real architecture, and clips whose label is a brightness that anything can learn."""

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ivcp.data.prepared.reader import PreparedSamples
from ivcp.data.prepared.sample import Sample
from ivcp.models.processor import Processor
from ivcp.records import Labels, PreparedIndex, TableInfo
from ivcp.settings import RunConfig, config_from_settings
from ivcp.training.build import build_trainer
from tests.prepared import write_shards
from tests.samples import PROMPT, sample_of
from tests.tiny_families import build_tiny_family

LABELS = Labels(label_names=("dark", "light", "half"))


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)  # the models are too tiny to gain from more


@pytest.fixture(scope="session", params=["qwen2_vl"])
def base_model_dir(request, tmp_path_factory) -> Path:
    """Random weights; a test asks for other families by parametrizing this fixture indirectly."""
    return build_tiny_family(tmp_path_factory.mktemp("models") / "tiny", request.param)


@pytest.fixture
def make_config(base_model_dir, tmp_path):
    def make(**settings) -> RunConfig:
        return config_from_settings(
            {
                "model_name_or_path": str(base_model_dir),
                "output_dir": str(tmp_path / "adapter"),
                "video_num_frames": 4,
                "video_min_pixels": 1024,
                "video_max_pixels": 1024,
                "lora_rank": 4,
                "learning_rate": 3e-3,
                "num_train_epochs": 2,
                "per_device_train_batch_size": 3,
                "save_steps": 2,
                "logging_steps": 1,
                "disable_gradient_checkpointing": True,
                "report_to": "none",
                **settings,
            }
        )

    return make


@pytest.fixture
def run_settings(action_data, base_model_dir, tmp_path) -> dict[str, Any]:
    """Of a short training on `action_data` and its evaluation, as a user writes them."""
    return {
        "model_name_or_path": str(base_model_dir),
        "dataset": "actions",
        "dataset_dir": str(action_data.folder),
        "test_size": 0.25,
        "output_dir": str(tmp_path / "out"),
        "video_num_frames": 4,
        "video_max_pixels": 1024,
        "preprocessing_num_workers": 1,
        "per_device_train_batch_size": 6,
        "num_train_epochs": 1,
        "report_to": "none",
        "mlflow_tracking_uri": f"sqlite:///{tmp_path}/mlflow.db",
    }


@pytest.fixture(scope="session")
def prepared_clips(base_model_dir) -> list[Sample]:
    """Eighteen clips of four 32x32 frames, six per label."""
    video = config_from_settings({"video_min_pixels": 1024, "video_max_pixels": 1024}).video
    processor = Processor.from_pretrained(base_model_dir, video=video, special_tokens=("<ACTION>",))
    return [prepared_clip(processor, number) for number in range(18)]


def prepared_clip(
    processor: Processor, number: int, *, num_frames: int = 4, size: tuple[int, int] = (32, 32)
) -> Sample:
    rng, label = np.random.default_rng(number), number % 3
    frames = rng.integers(0, 60, (num_frames, *size, 3), dtype=np.uint8)
    if label:
        frames[:, :, : size[1] // label] += np.uint8(180)
    return sample_of(
        processor,
        frames,
        label=label,
        sample_id=f"clips:{number}",
        source=f"{number}.mp4",
        seconds_per_frame=0.25,
    )


@pytest.fixture
def make_index(make_config):
    def make(*, train: int = 12, val: int = 6) -> PreparedIndex:
        return PreparedIndex(
            fingerprint="prepared",
            root_uri="",
            shards=(),
            table=TableInfo(file="clips.arrow", num_bytes=0, sha256=""),
            labels=LABELS,
            video=make_config().video,
            stage="action_cls",
            special_tokens=("<ACTION>",),
            prompts=(PROMPT,),
            num_clips={"train": train, "val": val},
            label_counts={"train": (train // 3,) * 3, "val": (val // 3,) * 3},
            max_tokens=40,
            mean_tokens=40.0,
            data_fingerprint="data",
        )

    return make


@pytest.fixture
def make_trainer(make_config, make_index, prepared_clips, tmp_path):
    def make(output_dir=None, **settings):
        config = make_config(**settings)
        clips = {"train": prepared_clips[:12], "val": prepared_clips[12:]}
        return build_trainer(config, index=make_index(), samples=clips, output_dir=output_dir or tmp_path / "adapter")

    return make


@pytest.fixture
def sharded_index(make_index, prepared_clips, tmp_path):
    """Twelve training and six validation clips in shards below `prepared/`."""
    folder = tmp_path / "data" / "prepared"
    clips = [("train" if number < 12 else "val", clip) for number, clip in enumerate(prepared_clips)]
    return make_index().model_copy(update=write_shards(folder, clips, clips_per_shard=5))


@pytest.fixture
def train_on_shards(make_config, sharded_index, tmp_path):
    """Builds a trainer whose clips are read from shards: `train_on_shards(output_dir=…, **settings)`."""

    def make(output_dir=None, index=sharded_index, **settings):
        clips = {split: PreparedSamples(index, split) for split in ("train", "val")}
        return build_trainer(
            make_config(**settings), index=index, samples=clips, output_dir=output_dir or tmp_path / "adapter"
        )

    return make


@pytest.fixture
def mixed_index(sharded_index, prepared_clips, tmp_path):
    """Training clips of four and of two frames: 40 and fewer tokens."""
    clips = []
    for number, clip in enumerate(prepared_clips):
        if number % 3 == 0:
            (medium,) = clip.media
            is_first = np.cumsum(clip.mm_token_type_ids != 0) > np.count_nonzero(clip.mm_token_type_ids) // 2
            keep = is_first | (clip.mm_token_type_ids == 0)
            clip = dataclasses.replace(
                clip,
                media=(dataclasses.replace(medium, frames=medium.frames[:2]),),
                input_ids=clip.input_ids[keep],
                mm_token_type_ids=clip.mm_token_type_ids[keep],
                loss_mask=clip.loss_mask[keep],
                num_prompt_tokens=int(keep.sum()),
            )
        clips.append(("train" if number < 12 else "val", clip))
    return sharded_index.model_copy(update=write_shards(tmp_path / "mixed", clips) | {"fingerprint": "mixed"})


@pytest.fixture
def videos(tmp_path: Path) -> Callable[[Iterable[str]], Path]:
    """Makes files of these names, whose content nobody looks at here."""

    def make(names: Iterable[str]) -> Path:
        for name in names:
            file = tmp_path / "videos" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"video")
        return tmp_path / "videos"

    return make
