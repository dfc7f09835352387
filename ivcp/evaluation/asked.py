"""Samples as the predictor would ask about them: all with one prompt, whatever their rows ask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from ivcp.data.prepared.sample import Medium, Sample, Tokens
from ivcp.inference.loop import Samples
from ivcp.models.processor import Processor
from ivcp.records import Message

_EARLY, _LATE = (0, 1), (100_000, 100_001)
"""Frame indices whose times have another number of digits."""


@dataclass(frozen=True)
class AskedSamples:
    """Samples with the tokens of one prompt in the place of their own; media and columns stay.

    Tokens depend on how many frames a clip has and how large they are, and, where the model writes time stamps into its
    prompt, on when they were taken: each kind of clip is tokenised once.
    """

    samples: Samples
    tokenize: Callable[[Processor, Sequence[Message], Sequence[Medium]], Tokens]
    processor: Processor
    prompt: tuple[Message, ...]
    _known: dict[Any, Tokens] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, position: int) -> Sample:
        sample = self.samples[position]
        return replace(sample, **vars(self._tokens(sample.media)))

    def _tokens(self, media: tuple[Medium, ...]) -> Tokens:
        times = [(m.frame_indices, m.source_fps, m.total_frames) for m in media] if self._has_time_stamps else []
        kind = (*(medium.frames.shape for medium in media), *times)
        if kind not in self._known:
            self._known[kind] = self.tokenize(self.processor, self.prompt, media)
        return self._known[kind]

    @cached_property
    def _has_time_stamps(self) -> bool:
        """Whether the same number of frames makes other tokens at another time."""
        frames = np.zeros((2, *self.processor.frame_size(16, 16), 3), dtype=np.uint8)
        early, late = (
            self.tokenize(self.processor, self.prompt, [Medium(frames, 1.0, indices, 1.0, indices[-1] + 1)])
            for indices in (_EARLY, _LATE)
        )
        return not np.array_equal(early.input_ids, late.input_ids)
