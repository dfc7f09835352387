import itertools
from collections import Counter

import numpy as np
import pytest

from ivcp.data.prepared.batches import BudgetError, PlannedBatches
from ivcp.data.prepared.rows import RowPlanner, rows_of


def lengths_of(num_samples=500, seed=0):
    return np.random.default_rng(seed).integers(20, 400, num_samples)


def in_rows(lengths=None, *, row_tokens=1000, clips_per_batch=2, **settings):
    lengths = lengths_of() if lengths is None else lengths
    return PlannedBatches(lengths, clips_per_batch=clips_per_batch, row_tokens=row_tokens, **settings)


def test_samples_share_a_row_as_long_as_they_fit():
    assert rows_of([3, 4, 3, 8, 2, 10, 1], 10) == [range(3), range(3, 5), range(5, 6), range(6, 7)]
    assert rows_of([5], 10) == [range(1)]
    assert rows_of([12, 1], 10) == [range(1), range(1, 2)]


def test_rows_are_filled_with_the_longest_that_fit():
    lengths = np.array([6, 4, 9, 3, 3, 1, 2, 2])
    planner = RowPlanner(lengths, 10)
    samples, starts = planner.rows(np.random.default_rng(0))
    rows = [sorted(lengths[row].tolist()) for row in np.split(samples, starts[1:])]
    assert sorted(rows) == [[1, 9], [2, 2, 3, 3], [4, 6]]


@pytest.mark.parametrize(
    "settings", [{}, {"num_processes": 3, "accumulation": 2}, {"tokens_per_batch": 3500}, {"tokens_per_batch": 700}]
)
def test_every_sample_comes_once_and_no_row_or_batch_is_too_full(settings):
    batches = in_rows(**settings)
    tokens = settings.get("tokens_per_batch", 2000)
    row_tokens = min(1000, tokens)
    for epoch in range(3):
        plan = batches.plan(epoch)
        at_once = settings.get("num_processes", 1) * settings.get("accumulation", 1)
        assert len(plan) % at_once == 0
        assert len(plan) // settings.get("num_processes", 1) == len(batches), "in every epoch"
        assert Counter(itertools.chain(*plan)) == Counter(range(500))
        for batch in plan:
            rows = rows_of(batches.lengths[batch].tolist(), row_tokens)
            assert len(rows) <= tokens // row_tokens
            assert all(batches.lengths[batch][row.start : row.stop].sum() <= row_tokens for row in rows)


def test_rows_have_less_padding_than_clips_of_like_length():
    assert in_rows().padding_share(0) < 0.04
    single = PlannedBatches(lengths_of(), clips_per_batch=8)
    assert single.padding_share(0) > 0.3


def test_a_plan_depends_on_seed_and_epoch_alone_and_mixes_samples_anew():
    batches = in_rows(seed=1)
    assert list(batches.plan(2)) == list(in_rows(seed=1).plan(2))
    assert list(batches.plan(0)) != list(in_rows(seed=2).plan(0))
    pairs = [
        {frozenset(pair) for batch in batches.plan(epoch) for pair in itertools.combinations(batch, 2)}
        for epoch in range(2)
    ]
    assert len(pairs[0] & pairs[1]) < 0.3 * len(pairs[0])


def test_processes_share_the_rows_of_a_plan():
    whole = in_rows(num_processes=2)
    shares = [list(in_rows(rank=rank, num_processes=2)) for rank in range(2)]
    assert [batch for pair in zip(*shares, strict=True) for batch in pair] == list(whole.plan(0))


def test_a_sample_longer_than_a_row_is_refused():
    with pytest.raises(BudgetError, match=r"cutoff_len = 300, but the longest clip has 398 tokens .* cutoff_len: 398"):
        in_rows(row_tokens=300)


def test_many_samples_fill_their_rows():
    lengths = np.random.default_rng(0).integers(20, 2048, 200_000)
    planner = RowPlanner(lengths, 2048)
    samples, starts = planner.rows(np.random.default_rng(0))
    assert len(np.unique(samples)) == 200_000
    sums = np.add.reduceat(lengths[samples], starts)
    assert sums.max() <= 2048
    assert sums.mean() > 0.99 * 2048
