"""Trainers on the clips of `prepared_clips`, from a list or from real shards."""

import dataclasses

import numpy as np
import pytest

from components.prepared_clips import PreparedClips
from components.training.train import build_trainer
from tests.prepared import write_shards


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
    clips = [("train" if number < 12 else "val", clip) for number, clip in enumerate(prepared_clips)]
    return make_index().model_copy(update=write_shards(folder, clips, clips_per_shard=5))


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
    clips = []
    for number, clip in enumerate(prepared_clips):
        if number % 3 == 0:
            is_first = np.cumsum(clip.mm_token_type_ids != 0) > np.count_nonzero(clip.mm_token_type_ids) // 2
            keep = is_first | (clip.mm_token_type_ids == 0)
            clip = dataclasses.replace(
                clip,
                frames=clip.frames[:2],
                input_ids=clip.input_ids[keep],
                mm_token_type_ids=clip.mm_token_type_ids[keep],
            )
        clips.append(("train" if number < 12 else "val", clip))
    return sharded_index.model_copy(update=write_shards(tmp_path / "mixed", clips) | {"fingerprint": "mixed"})
