"""Dynamic batches: requests that come together go through the model together.

One thread runs the model. It takes what waits, the oldest first, with others of about the same length, so that little
is computed for padding. A clip that is alone does not wait.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ivcp.data.prepared.sample import Sample

if TYPE_CHECKING:
    import torch

RunModel = Callable[[Sequence[Sample]], "torch.Tensor"]
"""The logits, (len(samples), classes), of one batch."""
_LIKE = 0.75
"""A clip joins a batch where the shorter of the two has at least this share of the other's tokens."""


@dataclass(frozen=True)
class Computed:
    """What the model said of one clip."""

    logits: torch.Tensor
    """(classes,), float32 on the CPU."""
    batch_size: int
    queue_seconds: float
    """From the clip's arrival to its batch's start."""
    model_seconds: float
    """Of the whole batch."""


@dataclass(frozen=True)
class _Waiting:
    sample: Sample
    since: float
    future: Future[Computed] = field(default_factory=Future)

    @property
    def tokens(self) -> int:
        return len(self.sample.input_ids)


class Batcher:
    """One model's queue and the thread that runs the model."""

    def __init__(
        self,
        run: RunModel,
        *,
        max_tokens: int,
        max_wait_seconds: float,
        name: str = "model",
    ) -> None:
        """Starts the thread.

        Args:
            run: computes one batch.
            max_tokens: of one batch with its padding; a clip that has more alone is a batch of its own.
            max_wait_seconds: the longest that a clip waits for others to join it.
            name: of the thread.
        """
        self._run, self._max_tokens, self._max_wait_seconds = run, max_tokens, max_wait_seconds
        self._num_coming = 0
        self._waiting: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name=f"batches-of-{name}", daemon=True)
        self._thread.start()

    @property
    def num_waiting(self) -> int:
        """Clips that no batch has taken yet."""
        return len(self._waiting)

    def submit(self, sample: Sample) -> Future[Computed]:
        """Hands in a clip; a future that is cancelled before its batch begins costs nothing.

        Raises:
            RuntimeError: the batcher is closed.
        """
        with self._changed:
            return self._take(sample)

    @contextmanager
    def coming(self) -> Iterator[Callable[[Sample], Future[Computed]]]:
        """Inside, a clip is on its way, for which others may wait; what it yields hands it in, as `submit` does."""
        is_coming = True

        def arrived(sample: Sample) -> Future[Computed]:
            nonlocal is_coming
            with self._changed:
                is_coming = False
                self._num_coming -= 1
                return self._take(sample)

        with self._changed:
            self._num_coming += 1
        try:
            yield arrived
        finally:
            if is_coming:  # it will not come
                with self._changed:
                    self._num_coming -= 1
                    self._changed.notify_all()

    def close(self) -> None:
        """Computes what waits, and ends the thread."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join()

    def _take(self, sample: Sample) -> Future[Computed]:
        if self._is_closed:
            raise RuntimeError("the model is being unloaded")
        waiting = _Waiting(sample, time.monotonic())
        self._waiting.append(waiting)
        self._changed.notify_all()
        return waiting.future

    def _work(self) -> None:
        import torch  # here: it takes seconds

        cores = torch.get_num_threads()
        while batch := self._next_batch():
            # Threads that share their cores with decoders wait for each other at every operation.
            torch.set_num_threads(max(1, cores - self._num_coming))
            _compute(self._run, batch)

    def _next_batch(self) -> list[_Waiting]:
        """Waits for clips; empty when the batcher is closed and nothing is left."""
        with self._changed:
            while True:
                while not self._waiting and not self._is_closed:
                    self._changed.wait()
                batch = self._chosen()
                patience = batch[0].since + self._max_wait_seconds - time.monotonic() if batch else 0.0
                if self._is_closed or patience <= 0 or self._is_full(batch) or not self._num_coming:
                    taken = set(map(id, batch))
                    self._waiting = deque(one for one in self._waiting if id(one) not in taken)
                    running = [one for one in batch if one.future.set_running_or_notify_cancel()]
                    if running or (self._is_closed and not self._waiting):
                        return running
                else:
                    self._changed.wait(patience)

    def _chosen(self) -> list[_Waiting]:
        """The oldest clip and those that fit it, the nearest in length first."""
        self._waiting = deque(one for one in self._waiting if not one.future.cancelled())
        if not self._waiting:
            return []
        oldest = self._waiting[0]
        chosen, shortest, longest = [oldest], oldest.tokens, oldest.tokens
        others = list(self._waiting)[1:]
        for one in sorted(others, key=lambda other: abs(other.tokens - oldest.tokens)):
            low, high = min(shortest, one.tokens), max(longest, one.tokens)
            if low < _LIKE * high or high * (len(chosen) + 1) > self._max_tokens:
                break
            chosen.append(one)
            shortest, longest = low, high
        return chosen

    def _is_full(self, batch: Sequence[_Waiting]) -> bool:
        return max(one.tokens for one in batch) * (len(batch) + 1) > self._max_tokens


def _compute(run: RunModel, batch: Sequence[_Waiting]) -> None:
    """Computes a batch; where that fails, each clip alone, so that one that cannot be computed costs itself."""
    started = time.monotonic()
    try:
        logits = run([one.sample for one in batch])
    except Exception as error:  # noqa: BLE001 - the edge of a thread: whoever waits gets it
        if len(batch) > 1:
            for one in batch:
                _compute(run, [one])
            return
        _give(batch[0].future, error)
        return
    seconds = time.monotonic() - started
    for one, row in zip(batch, logits, strict=True):
        _give(one.future, Computed(row, len(batch), started - one.since, seconds))


def _give(future: Future[Computed], outcome: Computed | Exception) -> None:
    with suppress(InvalidStateError):
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
