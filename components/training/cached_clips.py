"""Clips whose vision features were computed before: the data set, and the batch of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from components.clip_processor import ClipProcessor, PreparedClip
from components.prepared_clips import PreparedClips
from components.training.feature_store import FeatureSet

FEATURE_PREFIX = "vision_features/"
"""Stored tensors with this prefix go to the model as `vision_features`, the others as inputs of their own."""


@dataclass(frozen=True)
class CachedClip:
    """One sample with the features of its video in place of the frames."""

    clip: PreparedClip
    """Its tokens and label; without frames."""
    tensors: Mapping[str, Tensor]
    """The clip's rows of the features and of what describes their grid; views of a memory-mapped file."""


class CachedClips(Dataset[CachedClip]):
    """Prepared clips with their features; the frames are never read."""

    def __init__(self, clips: PreparedClips, features: FeatureSet) -> None:
        self.clips = clips.without_frames()
        self.features = features

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> CachedClip:
        return CachedClip(self.clips[index], self.features[index % len(self)])

    def token_lengths(self) -> NDArray[np.int64]:
        """Tokens of each clip, (len(self),)."""
        return self.clips.token_lengths()

    def labels(self) -> NDArray[np.int64]:
        """The label of each clip, (len(self),)."""
        return self.clips.labels()


class ClipCollator:
    """Makes batches of prepared clips, and of clips with features; a batch holds one kind."""

    def __init__(self, processor: ClipProcessor) -> None:
        self.processor = processor

    def __call__(self, clips: Sequence[PreparedClip] | Sequence[CachedClip]) -> dict[str, Any]:
        """A right-padded batch as `ClipProcessor.collate` makes it."""
        cached = [clip for clip in clips if isinstance(clip, CachedClip)]
        if cached:
            return collate_cached(self.processor, cached)
        return dict(self.processor.collate([clip for clip in clips if isinstance(clip, PreparedClip)]))


def collate_cached(processor: ClipProcessor, clips: Sequence[CachedClip]) -> dict[str, Any]:
    """A right-padded batch with `vision_features` in place of pixels: one concatenation for each tensor."""
    joined = {name: torch.cat([cached.tensors[name] for cached in clips]) for name in clips[0].tensors}
    features = {name.removeprefix(FEATURE_PREFIX): joined.pop(name) for name in list(joined) if _is_feature(name)}
    return {**processor.collate_tokens([cached.clip for cached in clips]), **joined, "vision_features": features}


def _is_feature(name: str) -> bool:
    return name.startswith(FEATURE_PREFIX)
