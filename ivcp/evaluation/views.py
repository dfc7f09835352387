"""Several views of each test clip, whose logits are averaged: frames at other moments, and crops of them.

Temporal views are what mmaction2 calls clips: each has as many frames as the model is trained with, evenly spread over
the whole clip, at the moments between those of the other views. Preparation stored them around each sampled frame.
Spatial views are its ThreeCrop: squares of the shorter side, at both ends of the longer one and in its middle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Subset

from ivcp.data.prepared.reader import PreparedSamples
from ivcp.data.prepared.sample import Medium, Sample
from ivcp.evaluation.intervals import Resamples
from ivcp.evaluation.predict import PredictedSplit
from ivcp.inference.loop import Samples
from ivcp.models.processor import Processor
from ivcp.records import PreparedIndex
from ivcp.records.evaluation import SplitMetrics
from ivcp.records.views import MultiView
from ivcp.video.clips import resize_frames
from ivcp.video.sampling import candidate_indices, sampled_candidate

Crop = Literal["first", "middle", "last"]
CROPS: tuple[Crop, ...] = ("first", "middle", "last")


@dataclass(frozen=True)
class StoredViews:
    """Test clips with all frames that are stored around each sampled moment."""

    samples: Samples
    num_clips: int
    """Temporal views."""
    processor: Processor

    @classmethod
    def of(
        cls, index: PreparedIndex, positions: NDArray[np.int64], *, processor: Processor, num_clips: int
    ) -> StoredViews:
        """Those at `positions` of the test split.

        Raises:
            ValueError: they were prepared for another number of temporal views.
        """
        samples: Any = Subset(PreparedSamples(index, "test", keep_candidates=True), positions.tolist())
        stored = samples[0].media[0].frame_candidates
        if num_clips not in (1, stored):
            raise ValueError(
                f"test_num_clips = {num_clips}, but these clips were prepared with {stored} frames around each sampled "
                "moment: prepare them with the same setting"
            )
        return cls(cast(Samples, samples), num_clips, processor)

    def is_sampled(self, view: int) -> bool:
        """Whether a temporal view, from 0, is the single one that the predictor sees."""
        return view == sampled_candidate(self.num_clips)

    def view(self, number: int, crop: Crop | None) -> Samples:
        """The clips in a temporal view, from 0, whole or cropped."""
        return _View(self, number, crop)


@dataclass(frozen=True)
class _View:
    stored: StoredViews
    number: int
    crop: Crop | None

    def __len__(self) -> int:
        return len(self.stored.samples)

    def __getitem__(self, position: int) -> Sample:
        sample = self.stored.samples[position]
        return sample.with_media(self._seen(medium) for medium in sample.media)

    def _seen(self, medium: Medium) -> Medium:
        count = medium.frame_candidates
        place = self.number if self.stored.num_clips > 1 else sampled_candidate(count)
        indices = medium.frame_indices
        if indices and self.stored.num_clips > 1:
            indices = candidate_indices(indices, medium.total_frames, count)[place::count]
        frames = medium.frames[place::count]
        if self.crop is not None:
            frames = cropped(frames, self.crop)
            frames = resize_frames(frames, self.stored.processor.frame_size(*frames.shape[1:3]))
        return replace(medium, frames=frames, frame_indices=indices, frame_candidates=1)


def cropped(frames: NDArray[np.uint8], crop: Crop) -> NDArray[np.uint8]:
    """The square of (num_frames, height, width, 3) at one end of the longer side, or in its middle."""
    height, width = frames.shape[1:3]
    side, rest = min(height, width), abs(height - width)
    start = {"first": 0, "middle": rest // 2, "last": rest}[crop]
    square = frames[:, start : start + side] if height > width else frames[:, :, start : start + side]
    return np.ascontiguousarray(square)


def average(views: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """The mean logits, (clips, classes), of views of the same clips."""
    mean: NDArray[np.float64] = np.mean([logits.astype(np.float64) for logits in views], axis=0)
    return mean.astype(np.float32)


def measure_views(
    several: PredictedSplit,
    single: PredictedSplit,
    *,
    measured: SplitMetrics,
    clusters: NDArray[np.uint64],
    views: tuple[int, int],
) -> MultiView:
    """What averaged logits are worth beside those of the single view.

    Args:
        several: with averaged logits.
        single: the same clips in one view.
        measured: the numbers of `several`.
        clusters: what clips that resemble each other share, (clips,), those that failed last.
        views: temporal and spatial ones.
    """
    failed = np.zeros(len(single.failed), dtype=np.bool_)
    hits, before = (np.concatenate([p.predictions == p.labels, failed]) for p in (several, single))
    resamples = Resamples(clusters)
    return MultiView(
        temporal=views[0],
        spatial=views[1],
        top1_accuracy=measured.top1_accuracy,
        interval=resamples.share(hits),
        top5_accuracy=measured.top5_accuracy,
        mean_class_accuracy=measured.mean_class_accuracy,
        gain=float(hits.mean() - before.mean()),
        gain_interval=resamples.difference(hits, before),
    )
