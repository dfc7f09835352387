"""Clips as evaluation measures them: validated, prepared, read from shards and predicted in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ivcp.data.prepared.reader import PreparedSamples
from ivcp.evaluation.asked import AskedSamples
from ivcp.evaluation.predict import predict_split
from ivcp.preparation.prepare import prepare_clips
from ivcp.records import SPLITS, PreparedIndex
from ivcp.stages.directory import load_directory
from ivcp.validation.validate import validate_data
from tests.data_sets import DataSet, sharegpt_row

FRAMES = {"video_fps": 4.0, "video_maxlen": 24, "video_min_pixels": 1024, "video_max_pixels": 6400}
"""Clips of unlike length and shape have unlike numbers of tokens."""


@dataclass(frozen=True)
class EvaluatedClip:
    """A clip and what evaluation says of it."""

    video: Path | tuple[Path, ...]
    """A file, or frame images."""
    logits: NDArray[np.float32]
    num_tokens: int


def evaluated(videos: Sequence[Path | tuple[Path, ...]], model_dir: Path, folder: Path) -> list[EvaluatedClip]:
    """The logits that evaluation gives for videos, in their order; `folder` gets the files of the steps before it."""
    rows = []
    for number, video in enumerate(videos):
        paths: Any = str(video) if isinstance(video, Path) else [str(image) for image in video]
        rows.append(sharegpt_row(paths, ("sit_down", "stand_up", "wave")[number % 3], group=f"group {number}"))
    folder.mkdir()
    settings = {"model_name_or_path": str(model_dir), "video_num_frames": None, **FRAMES}
    config = DataSet(folder).add("clips", rows).config(dataset="clips", **settings)
    validate_data(config, folder / "validated")
    index = prepare_clips(
        config,
        validated_dir=folder / "validated",
        shards_uri=str(folder / "shards"),
        index_path=folder / "index.json",
    )
    assert not index.failed
    found = dict(_predicted(index, model_dir))
    return [EvaluatedClip(video, *found[number]) for number, video in enumerate(videos)]


def _predicted(index: PreparedIndex, model_dir: Path) -> Iterator[tuple[int, tuple[NDArray[np.float32], int]]]:
    model = load_directory(model_dir)
    for split in SPLITS:
        samples = PreparedSamples(index, split)
        asked = AskedSamples(samples, model.stage.tokenize, model.processor, model.prompt)
        predicted = predict_split(model.predict, asked, num_classes=model.labels.num_classes, batch_size=8)
        for place, (clip_id, logits) in enumerate(zip(predicted.clip_ids, predicted.logits, strict=True)):
            yield int(clip_id.rpartition(":")[2]), (logits, len(asked[place].input_ids))
