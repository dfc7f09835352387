"""Clips whose vision features were computed before, as a data set."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from ivcp.data.prepared.reader import PreparedClips
from ivcp.feature_cache.store import FeatureSet
from ivcp.models.processor import CachedClip


class CachedClips(Dataset[CachedClip]):
    """Prepared clips with their features; the frames are never read."""

    def __init__(self, clips: PreparedClips, features: FeatureSet) -> None:
        self.clips = clips.without_frames()
        self.features = features

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> CachedClip:
        return CachedClip(**vars(self.clips[index]), tensors=self.features[index % len(self)])

    def token_lengths(self, *, with_answers: bool = False) -> NDArray[np.int64]:
        """Tokens of each clip, (len(self),)."""
        return self.clips.token_lengths(with_answers=with_answers)

    def labels(self) -> NDArray[np.int64]:
        """The label of each clip, (len(self),)."""
        return self.clips.labels()
