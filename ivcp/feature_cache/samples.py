"""Samples whose vision features were computed before, as a data set."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from ivcp.data.prepared.reader import PreparedSamples
from ivcp.data.prepared.sample import EncodedSample
from ivcp.feature_cache.store import CacheEntry


class EncodedSamples(Dataset[EncodedSample]):
    """Prepared samples with their features; the frames are never read."""

    def __init__(self, samples: PreparedSamples, entry: CacheEntry) -> None:
        self.samples = samples.without_frames()
        self.entry = entry

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> EncodedSample:
        return EncodedSample(**vars(self.samples[index]), tensors=self.entry[index % len(self)])

    def token_lengths(self, *, prompts_only: bool) -> NDArray[np.int64]:
        """Tokens of each sample, (len(self),)."""
        return self.samples.token_lengths(prompts_only=prompts_only)

    def column(self, name: str) -> NDArray[Any]:
        """A number of each sample, (len(self),)."""
        return self.samples.column(name)
