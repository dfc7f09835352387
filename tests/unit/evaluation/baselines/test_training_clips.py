"""Which training clips a probe learns from, of shards that are fetched whole."""

import numpy as np
import pytest

from ivcp.evaluation.baselines.training_clips import draw_training_clips


def test_few_clips_are_all_taken():
    assert draw_training_clips(np.arange(9) % 3, np.zeros(9), most=9, shots=2).tolist() == list(range(9))


def test_mixed_shards_are_fetched_no_more_than_needed():
    labels, shards = np.arange(4000) % 5, np.arange(4000) // 250
    rows = draw_training_clips(labels, shards, most=1000, shots=8)
    assert len(rows) == 1000
    assert len(np.unique(shards[rows])) == 4
    assert np.array_equal(rows, draw_training_clips(labels, shards, most=1000, shots=8))


@pytest.mark.parametrize("most", [100, 400])
def test_rows_that_stand_class_by_class_bring_every_class(most):
    labels, shards = np.arange(4000) // 400, np.arange(4000) // 250
    rows = draw_training_clips(labels, shards, most=most, shots=8)
    counts = np.bincount(labels[rows], minlength=10)
    assert len(rows) == most
    assert (counts >= 8).all()
    assert len(np.unique(shards[rows])) < 16
