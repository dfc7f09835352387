"""Which samples make up a batch: by a budget of tokens, and with every class equally often, where that is asked for."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import BatchSampler

from ivcp.data.prepared.rows import RowPlanner, rows_of

_BUCKET_GROWTH = 1.03
"""Clips whose lengths differ by less than this factor count as equally long, so that they meet others in each epoch."""


class BudgetError(ValueError):
    """Clips that are longer than a whole batch may be; the message has both numbers."""


class PlannedBatches(BatchSampler):
    """Batches of one process, planned for all processes alike from a seed and the epoch.

    The number of batches is the same for every process and epoch. Each clip comes once per epoch, or, where
    `labels` are given, as many clips as there are, drawn with replacement so that every class is equally likely.

    Args:
        lengths: tokens of each clip, (clips,).
        tokens_per_batch: most tokens of a batch, padding included; null makes batches of `clips_per_batch`.
        row_tokens: put several clips into a row of at most so many tokens, and `clips_per_batch` rows into a batch,
            or as many as `tokens_per_batch` says; null has a row for each clip.
        labels: (clips,), for balanced classes.
        numbers_draws: give the clip at `position` that comes for the `draw`-th time in an epoch as item
            `draw * clips + position`, as `AugmentedClips` has it.
        rank: this process among `num_processes`.
        accumulation: batches of one process in an optimizer step: their number is a multiple of it.
        repeats: how many optimizer steps in a row have the same batches.

    Raises:
        BudgetError: a clip is longer than `tokens_per_batch`, or than `row_tokens`.
    """

    def __init__(
        self,
        lengths: NDArray[np.int64],
        *,
        clips_per_batch: int,
        tokens_per_batch: int | None = None,
        row_tokens: int | None = None,
        labels: NDArray[np.int64] | None = None,
        numbers_draws: bool = False,
        seed: int = 0,
        rank: int = 0,
        num_processes: int = 1,
        accumulation: int = 1,
        repeats: int = 1,
    ) -> None:
        for name, most in (("tokens_per_batch", tokens_per_batch), ("cutoff_len", row_tokens)):
            if most is not None and lengths.max() > most:
                raise BudgetError(
                    f"{name} = {most}, but the longest clip has {lengths.max()} tokens "
                    f"({np.count_nonzero(lengths > most)} of {len(lengths)} clips do not fit): set "
                    f"{name}: {lengths.max()} or more, or sample fewer or smaller frames"
                )
        self.lengths = lengths
        self.batch_size = clips_per_batch
        self.drop_last = False
        self.epoch = 0
        self._budget, self._labels, self._numbers_draws = tokens_per_batch, labels, numbers_draws
        self._seed, self._rank, self._num_processes = seed, rank, num_processes
        self._bounds = _upper_bounds(lengths)
        self._accumulation, self._repeats = accumulation, repeats
        if row_tokens is not None and tokens_per_batch is not None:
            row_tokens = min(row_tokens, tokens_per_batch)
            self.batch_size = tokens_per_batch // row_tokens
        self._row_tokens = row_tokens
        self._rows = None if row_tokens is None else RowPlanner(self._bounds, row_tokens)
        at_once = num_processes * accumulation
        self._num_batches = math.ceil(len(self._unfitted(epoch=0)[1]) / at_once) * at_once

    def __len__(self) -> int:
        return self._repeats * self._num_batches // self._num_processes

    def __iter__(self) -> Iterator[list[int]]:
        plan = self.plan(self.epoch)
        if self._numbers_draws:
            plan = _number_draws(plan, len(self.lengths))
        own = list(range(self._rank, len(plan), self._num_processes))
        for start in range(0, len(own), self._accumulation):
            for _ in range(self._repeats):
                for number in own[start : start + self._accumulation]:
                    yield plan[number]

    @property
    def mean_size(self) -> float:
        """Clips of a batch, on average."""
        return len(self.lengths) / self._num_batches

    def set_epoch(self, epoch: int) -> None:
        """Plans the batches of this epoch from now on."""
        self.epoch = epoch

    def plan(self, epoch: int) -> BatchPlan:
        """The batches of all processes in an epoch: process r takes every `num_processes`-th from the r-th on."""
        rng = np.random.default_rng([self._seed, epoch, 1])
        clips, starts, sizes = self._unfitted(epoch)
        starts, sizes = _fit(starts, sizes, self._num_batches, rng)
        order = rng.permutation(len(starts))
        return BatchPlan(clips, starts[order], sizes[order])

    def padding_share(self, epoch: int) -> float:
        """Share of an epoch's tokens that are padding."""
        plan = self.plan(epoch)
        padded = used = 0
        for batch in plan.arrays():
            rows = self._row_lengths(batch)
            padded += len(rows) * int(rows.max())
            used += int(rows.sum())
        return 1 - used / padded

    def _row_lengths(self, batch: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tokens of each row of a batch."""
        lengths = self.lengths[batch]
        if self._row_tokens is None:
            return lengths
        rows = rows_of(lengths.tolist(), self._row_tokens)
        return np.array([lengths[row.start : row.stop].sum() for row in rows])

    def _unfitted(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Clips in an order of which batches are pieces, and where these start and how long they are."""
        rng = np.random.default_rng([self._seed, epoch, 0])
        if self._rows is not None:
            clips, starts = self._rows.rows(rng)
            starts = starts[:: self.batch_size]
            return clips, starts, np.diff(starts, append=len(clips))
        clips = np.arange(len(self.lengths)) if self._labels is None else _draw_balanced(self._labels, rng)
        clips = rng.permutation(clips)
        if self._budget is None:
            starts = np.arange(0, len(clips), self.batch_size)
        else:
            clips = clips[np.argsort(self._bounds[clips], kind="stable")]
            starts = _pack(self._bounds[clips], self._budget)
        return clips, starts, np.diff(starts, append=len(clips))


@dataclass(frozen=True)
class BatchPlan(Sequence[list[int]]):
    """Batches as pieces of one array, which takes a few bytes per clip: lists of numbers would take a hundred."""

    clips: NDArray[np.int64]
    starts: NDArray[np.int64]
    """Where each batch begins in `clips`, (batches,)."""
    sizes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return BatchPlan(self.clips, self.starts[number], self.sizes[number])
        start = int(self.starts[number])
        return self.clips[start : start + int(self.sizes[number])].tolist()

    def arrays(self) -> Iterator[NDArray[np.int64]]:
        """The batches without a copy."""
        for start, size in zip(self.starts.tolist(), self.sizes.tolist(), strict=True):
            yield self.clips[start : start + size]


@runtime_checkable
class SampleSet(Protocol):
    """A data set that knows the numbers of its samples without reading their frames."""

    def token_lengths(self, *, prompts_only: bool) -> NDArray[np.int64]:
        """Tokens of each sample, of its prompt or of all of it, (samples,)."""

    def column(self, name: str) -> NDArray[Any]:
        """A number of each sample, (samples,)."""


def token_lengths(samples: Any, *, prompts_only: bool) -> NDArray[np.int64]:
    """Tokens of each sample of a data set or a list, (samples,)."""
    if isinstance(samples, SampleSet):
        return samples.token_lengths(prompts_only=prompts_only)
    lengths = [sample.num_prompt_tokens if prompts_only else len(sample.input_ids) for sample in samples]
    return np.array(lengths, dtype=np.int64)


def column_of(samples: Any, name: str) -> NDArray[Any]:
    """A number of each sample of a data set or a list, (samples,)."""
    return samples.column(name) if isinstance(samples, SampleSet) else np.array([s.columns[name] for s in samples])


def _upper_bounds(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each length replaced by the largest one in its bucket."""
    buckets = np.floor(np.log(np.maximum(lengths, 1)) / math.log(_BUCKET_GROWTH)).astype(np.int64)
    _, position = np.unique(buckets, return_inverse=True)
    largest = np.zeros(position.max() + 1, dtype=np.int64)
    np.maximum.at(largest, position, lengths)
    bounds: NDArray[np.int64] = largest[position]
    return bounds


def _draw_balanced(labels: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """As many clips as there are labels: each class that occurs equally likely, then each of its clips."""
    _, position, counts = np.unique(labels, return_inverse=True, return_counts=True)
    shares = 1 / (len(counts) * counts[position])
    return rng.choice(len(labels), size=len(labels), p=shares / shares.sum())


def _pack(bounds: NDArray[np.int64], budget: int) -> NDArray[np.int64]:
    """Where batches of consecutive clips, of which `bounds` rises, begin: as many as fit when padded to the last."""
    starts, start = [], 0
    while start < len(bounds):
        starts.append(start)
        padded = bounds[start : start + budget // int(bounds[start]) + 1]  # no batch is longer, for no clip is shorter
        too_many = np.arange(1, len(padded) + 1) * padded > budget
        too_many[0] = False
        start += int(np.argmax(too_many)) if too_many.any() else len(padded)
    return np.array(starts, dtype=np.int64)


def _number_draws(plan: BatchPlan, num_clips: int) -> BatchPlan:
    """The same batches with `draw * num_clips + clip` for the clip that comes for the `draw`-th time, from 0."""
    clips = np.concatenate(list(plan.arrays()))
    by_clip = np.argsort(clips, kind="stable")
    is_first = np.diff(clips[by_clip], prepend=-1) != 0
    draws = np.empty_like(clips)
    draws[by_clip] = np.arange(len(clips)) - np.flatnonzero(is_first)[np.cumsum(is_first) - 1]
    return BatchPlan(draws * num_clips + clips, np.cumsum(plan.sizes) - plan.sizes, plan.sizes)


def _fit(
    starts: NDArray[np.int64], sizes: NDArray[np.int64], target: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Exactly `target` batches: the largest are halved, then some repeated; surplus (drawn) ones are dropped."""
    if len(starts) >= target:
        kept = rng.permutation(len(starts))[:target] if len(starts) > target else np.arange(target)
        return starts[kept], sizes[kept]
    missing = target - len(starts)
    largest = np.argsort(-sizes, kind="stable")[
        :missing
    ]  # no other batch can be among the first `missing` to be halved
    rest = np.delete(np.arange(len(sizes)), largest)
    heap = [(-int(sizes[number]), order, int(starts[number])) for order, number in enumerate(largest)]
    heapq.heapify(heap)
    while len(heap) + len(rest) < target:
        size, order, start = heap[0]
        if size == -1:
            heapq.heappush(heap, (size, len(heap), start))
            continue
        half = -size // 2
        heapq.heapreplace(heap, (-half, order, start))
        heapq.heappush(heap, (half + size, len(heap), start + half))
    pieces = np.array([(start, -size) for size, _, start in sorted(heap, key=lambda entry: entry[1])], dtype=np.int64)
    return np.concatenate([starts[rest], pieces[:, 0]]), np.concatenate([sizes[rest], pieces[:, 1]])
