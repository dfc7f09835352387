import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress

import numpy as np
import pytest
import torch

from ivcp.data.prepared.sample import Sample
from ivcp.serving.batching import Batcher, Computed


class Model:
    """Computes the length of each sample, and remembers its batches; waits at a gate."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.is_in = threading.Event()
        self.fails_for: int | None = None

    def __call__(self, samples: Sequence[Sample]) -> torch.Tensor:
        self.is_in.set()
        self.gate.wait()
        lengths = [len(sample.input_ids) for sample in samples]
        self.batches.append(lengths)
        if self.fails_for in lengths:
            raise RuntimeError("out of memory")
        return torch.tensor([[float(length)] for length in lengths])


def sample(tokens: int) -> Sample:
    ids = np.zeros(tokens, dtype=np.int64)
    return Sample(ids, ids, ids.astype(bool), tokens, sample_id="", source="", media=())


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def batcher(model: Model) -> Iterator[Batcher]:
    made = Batcher(model, max_tokens=400, max_wait_seconds=30.0)
    yield made
    model.gate.set()
    made.close()


def submit_together(batcher: Batcher, model: Model, lengths: Sequence[int]) -> list[Future[Computed]]:
    """Clips that come while the model is busy with another one."""
    model.gate.clear()
    model.is_in.clear()
    first = batcher.submit(sample(1))
    model.is_in.wait()
    futures = [batcher.submit(sample(length)) for length in lengths]
    model.gate.set()
    first.result(10)
    return futures


def test_what_comes_together_is_computed_together_and_each_gets_its_own(batcher: Batcher, model: Model):
    futures = submit_together(batcher, model, [100, 90, 80])
    results = [future.result(10) for future in futures]
    assert [result.logits.item() for result in results] == [100.0, 90.0, 80.0]
    assert [result.batch_size for result in results] == [3, 3, 3]
    assert all(result.queue_seconds >= 0 and result.model_seconds >= 0 for result in results)


def test_clips_of_unlike_length_are_not_padded_to_each_other(batcher: Batcher, model: Model):
    for future in submit_together(batcher, model, [100, 20, 98, 21]):
        future.result(10)
    assert model.batches == [[1], [100, 98], [20, 21]]


def test_the_oldest_clip_is_in_the_next_batch(batcher: Batcher, model: Model):
    for future in submit_together(batcher, model, [10, 100, 100, 100, 10]):
        future.result(10)
    assert model.batches == [[1], [10, 10], [100, 100, 100]]


def test_a_batch_has_no_more_tokens_than_the_budget_with_its_padding(batcher: Batcher, model: Model):
    for future in submit_together(batcher, model, [130, 125, 120, 100, 401]):
        future.result(10)
    assert model.batches[1:] == [[130, 125, 120], [100], [401]]
    assert all(max(batch) * len(batch) <= 400 for batch in model.batches[1:3])


def test_a_clip_that_is_alone_does_not_wait(batcher: Batcher):
    assert batcher.submit(sample(5)).result(10).queue_seconds < 5.0  # of the 30 that it might wait for others


def test_others_that_are_on_their_way_are_waited_for_up_to_the_limit(model: Model):
    batcher = Batcher(model, max_tokens=400, max_wait_seconds=30.0)
    with batcher.coming() as arrived:
        first = batcher.submit(sample(100))
        time.sleep(0.05)
        assert not first.done()
        second = arrived(sample(100))
    assert (first.result(10).batch_size, second.result(10).batch_size) == (2, 2)
    batcher.close()
    patient = Batcher(model, max_tokens=400, max_wait_seconds=0.05)
    with patient.coming():
        assert patient.submit(sample(100)).result(10).batch_size == 1
    patient.close()


def test_a_clip_that_does_not_come_after_all_holds_up_nobody(batcher: Batcher):
    with suppress(LookupError), batcher.coming():
        first = batcher.submit(sample(100))
        raise LookupError("its video is damaged")
    assert first.result(10).batch_size == 1


def test_a_full_batch_does_not_wait(model: Model):
    batcher = Batcher(model, max_tokens=200, max_wait_seconds=30.0)
    with batcher.coming():
        futures = [batcher.submit(sample(100)), batcher.submit(sample(100))]
        assert [future.result(10).batch_size for future in futures] == [2, 2]
    batcher.close()


def test_a_clip_that_cannot_be_computed_costs_itself(batcher: Batcher, model: Model):
    model.fails_for = 90
    good, bad, other = submit_together(batcher, model, [100, 90, 95])
    assert (good.result(10).logits.item(), other.result(10).logits.item()) == (100.0, 95.0)
    with pytest.raises(RuntimeError, match="out of memory"):
        bad.result(10)
    assert batcher.submit(sample(5)).result(10).logits.item() == 5.0


def test_what_was_cancelled_is_not_computed(batcher: Batcher, model: Model):
    model.gate.clear()
    first = batcher.submit(sample(1))
    model.is_in.wait()
    gone, here = batcher.submit(sample(100)), batcher.submit(sample(99))
    assert gone.cancel()
    model.gate.set()
    first.result(10)
    here.result(10)
    assert model.batches == [[1], [99]]


def test_closing_computes_what_waits(model: Model):
    batcher = Batcher(model, max_tokens=400, max_wait_seconds=30.0)
    with batcher.coming():
        future = batcher.submit(sample(7))
        batcher.close()
    assert future.result(0).logits.item() == 7.0
    with pytest.raises(RuntimeError, match="is being unloaded"):
        batcher.submit(sample(7))
