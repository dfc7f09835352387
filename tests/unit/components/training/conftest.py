"""Trainers on the clips of `prepared_clips`, from a list or from real shards."""

import numpy as np
import pytest

from components.prepared_clips import PreparedClips
from components.shards import ShardWriter, encode_clip
from components.training.train import build_trainer


@pytest.fixture
def make_trainer(make_config, make_index, prepared_clips, tmp_path):
    def make(output_dir=None, **settings):
        config = make_config(**settings)
        clips = {"train": prepared_clips[:12], "val": prepared_clips[12:]}
        return build_trainer(config, index=make_index(), clips=clips, output_dir=output_dir or tmp_path / "adapter")

    return make


@pytest.fixture
def sharded_index(make_index, prepared_clips, tmp_path):
    """Twelve training and six validation clips in shards below `prepared/`."""
    folder = tmp_path / "data" / "prepared"
    folder.mkdir(parents=True)
    with ShardWriter(folder, clips_per_shard=5) as writer:
        for number, clip in enumerate(prepared_clips):
            writer.add("train" if number < 12 else "val", encode_clip(**vars(clip)))
    return make_index().model_copy(update={"root_uri": str(folder), "shards": writer.shards})


@pytest.fixture
def train_on_shards(make_config, sharded_index, tmp_path):
    """Builds a trainer whose clips are read from shards: `train_on_shards(output_dir=…, **settings)`."""

    def make(output_dir=None, index=sharded_index, **settings):
        clips = {split: PreparedClips(index, split) for split in ("train", "val")}
        return build_trainer(
            make_config(**settings), index=index, clips=clips, output_dir=output_dir or tmp_path / "adapter"
        )

    return make


@pytest.fixture
def mixed_index(sharded_index, prepared_clips, tmp_path):
    """Training clips of four and of two frames: 40 and fewer tokens."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    with ShardWriter(folder) as writer:
        for number, clip in enumerate(prepared_clips):
            record = vars(clip)
            if number % 3 == 0:
                is_first = np.cumsum(clip.mm_token_type_ids != 0) > np.count_nonzero(clip.mm_token_type_ids) // 2
                keep = is_first | (clip.mm_token_type_ids == 0)
                record = record | {
                    "frames": clip.frames[:2],
                    "input_ids": clip.input_ids[keep],
                    "mm_token_type_ids": clip.mm_token_type_ids[keep],
                }
            writer.add("train" if number < 12 else "val", encode_clip(**record))
    return sharded_index.model_copy(update={"root_uri": str(folder), "shards": writer.shards, "fingerprint": "mixed"})
