"""Batches for a graph: the clips of one frame size together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ivcp.data.prepared.sample import Sample


@dataclass(frozen=True)
class BySize:
    """Collates clips of each frame size to a batch of their own; small, for worker processes have it too."""

    collate: Callable[[Sequence[Sample]], Mapping[str, Any]]

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """`rows` are the positions of each part's samples, `parts` their batches."""
        rows: dict[Any, list[int]] = {}
        for row, sample in enumerate(samples):
            rows.setdefault(tuple(medium.frames.shape[1:3] for medium in sample.media), []).append(row)
        return {
            "rows": list(rows.values()),
            "parts": [self.collate([samples[row] for row in each]) for each in rows.values()],
        }
