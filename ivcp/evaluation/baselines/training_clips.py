"""The training clips that a probe learns from: those of a few whole shards, with every class among them.

Shards that lie elsewhere are fetched whole, and rows often stand class by class: shards that bring what classes still
lack come first, then others by chance.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def draw_training_clips(
    labels: NDArray[np.int64], shards: NDArray[np.int64], *, most: int, shots: int
) -> NDArray[np.int64]:
    """Positions of at most `most` clips, ascending; the same ones every time, and all where there are no more.

    Args:
        labels: the class of each clip, (clips,).
        shards: the shard that holds each, (clips,).
        most: clips that are drawn.
        shots: clips of each class that are wanted, as far as `most` allows.
    """
    if len(labels) <= most:
        return np.arange(len(labels))
    random = np.random.default_rng(0)
    rows = np.flatnonzero(np.isin(shards, _chosen(labels, shards, random, most=most, shots=shots)))
    rows = random.permutation(rows)
    turn = np.minimum(_turns(labels[rows]), shots)  # each class in its turn up to its shots, then what comes
    return np.sort(rows[np.argsort(turn, kind="stable")[:most]])


def _chosen(
    labels: NDArray[np.int64], shards: NDArray[np.int64], random: np.random.Generator, *, most: int, shots: int
) -> list[int]:
    numbers, place = np.unique(shards, return_inverse=True)
    classes, label = np.unique(labels, return_inverse=True)
    counts = np.zeros((len(numbers), len(classes)), dtype=np.int64)
    np.add.at(counts, (place.reshape(-1), label.reshape(-1)), 1)
    lacking = np.minimum(counts.sum(axis=0), shots)
    left, chosen, num_clips = random.permutation(len(numbers)).tolist(), [], 0
    while left and (lacking.any() or num_clips < most):
        gains = [int(np.minimum(counts[shard], lacking).sum()) for shard in left]
        shard = left.pop(int(np.argmax(gains)))  # the first one where none brings anything
        lacking -= np.minimum(counts[shard], lacking)
        num_clips += int(counts[shard].sum())
        chosen.append(int(numbers[shard]))
    return chosen


def _turns(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many clips of its class stand before each, (clips,)."""
    order = np.argsort(labels, kind="stable")
    is_first = np.diff(labels[order], prepend=labels[order][:1] - 1) != 0
    firsts = np.flatnonzero(is_first)
    turns = np.empty(len(labels), dtype=np.int64)
    turns[order] = np.arange(len(labels)) - firsts[np.cumsum(is_first) - 1]
    return turns
