"""Several samples in one row: how they are planned, and which row each of a batch is in."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


@runtime_checkable
class PacksRows(Protocol):
    """A collator that puts the samples of a batch into rows."""

    @property
    def row_tokens(self) -> int:
        """Most tokens of a row."""


@runtime_checkable
class SharesPrompts(Protocol):
    """A collator that can put the answers to one prompt into one row, the prompt once."""

    @property
    def shares_prompts(self) -> bool:
        """Whether it does."""


def rows_of(lengths: Sequence[int], row_tokens: int) -> list[range]:
    """Which of the samples of a batch, in their order, share a row: each row has as many as fit.

    No other division of that order has fewer rows, so that a batch of planned rows is never given more of them.
    """
    rows, start, used = [], 0, 0
    for number, length in enumerate(lengths):
        if number > start and used + length > row_tokens:
            rows.append(range(start, number))
            start, used = number, 0
        used += length
    return [*rows, range(start, len(lengths))]


class RowPlanner:
    """Rows of samples, of which each is filled with the longest samples that still fit.

    How many samples of which length are in which row is the same in every epoch, and so is the number of rows; which
    ones these are differs.
    """

    def __init__(self, lengths: NDArray[np.int64], row_tokens: int) -> None:
        """`lengths`, (samples,), are none above `row_tokens`; those that are equal may change places."""
        self._lengths = lengths
        slots, starts = _fill(lengths, row_tokens)
        self._by_length = np.argsort(slots, kind="stable")
        """Places in the rows, those of the shortest samples first."""
        self._starts = starts
        self._sizes = np.diff(starts, append=len(slots))

    def __len__(self) -> int:
        return len(self._starts)

    def rows(self, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The samples of all rows in a random order, (samples,), one row behind the other, and where rows begin."""
        samples = rng.permutation(len(self._lengths))
        placed = np.empty_like(samples)
        placed[self._by_length] = samples[np.argsort(self._lengths[samples], kind="stable")]
        order = rng.permutation(len(self))
        sizes = self._sizes[order]
        starts = np.cumsum(sizes) - sizes
        within = np.arange(len(samples)) - np.repeat(starts, sizes)
        return placed[np.repeat(self._starts[order], sizes) + within], starts


def _fill(lengths: NDArray[np.int64], row_tokens: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The lengths of samples in their rows, (samples,), and where rows begin."""
    found, counts = np.unique(lengths, return_counts=True)
    left, numbers = found.tolist(), counts.tolist()
    slots: list[NDArray[np.int64]] = []
    starts, placed = [], 0
    while left:
        starts.append(placed)
        room = row_tokens
        while (place := bisect_right(left, room) - 1) >= 0:
            number = min(numbers[place], room // left[place])
            slots.append(np.full(number, left[place]))
            placed += number
            room -= number * left[place]
            numbers[place] -= number
            if not numbers[place]:
                del left[place], numbers[place]
    return np.concatenate(slots), np.array(starts, dtype=np.int64)
