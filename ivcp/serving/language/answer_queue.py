"""Answers that are written together: one thread runs the model, turn by turn.

A turn takes the answers that wait, the longest waiting first, as many as there is room for. It ends when all of them
are over, or, where others wait, after some tokens: those that go on then stand behind the others. So a long answer
holds nobody up for longer than a turn, and where there is room all are written side by side.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field

from ivcp.inference.turns import GrowingAnswer

RunTurn = Callable[[Sequence[GrowingAnswer], Callable[[int], bool]], None]
"""Lets answers go on until all are over, or the function says so of the tokens written in this turn."""


@dataclass(frozen=True)
class Written:
    """How an answer came to be."""

    queue_seconds: float
    """In which it waited."""
    model_seconds: float
    """In which it was written, with others perhaps."""
    batch_size: int
    """The most answers that it was written together with, itself included."""


@dataclass
class _Waiting:
    answer: GrowingAnswer
    future: Future[Written] = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)
    queue_seconds: float = 0.0
    model_seconds: float = 0.0
    batch_size: int = 0


class AnswerQueue:
    """One model's queue and the thread that runs the model."""

    def __init__(self, run: RunTurn, *, max_tokens: int, turn_tokens: int, name: str = "model") -> None:
        """Starts the thread.

        Args:
            run: writes one turn.
            max_tokens: of one batch, with its padding and what may be written yet; an answer that has more alone is a
                batch of its own.
            turn_tokens: how many tokens of each answer are written before others that wait have their turn.
            name: of the thread.
        """
        self._run, self._max_tokens, self._turn_tokens = run, max_tokens, turn_tokens
        self._waiting: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name=f"answers-of-{name}", daemon=True)
        self._thread.start()

    @property
    def num_waiting(self) -> int:
        """Answers that are not being written at the moment."""
        return len(self._waiting)

    def submit(self, answer: GrowingAnswer) -> Future[Written]:
        """Hands in an answer; the future is done when it is over, or cancelled.

        Raises:
            RuntimeError: the queue is closed.
        """
        with self._changed:
            if self._is_closed:
                raise RuntimeError("the model is being unloaded")
            waiting = _Waiting(answer)
            self._waiting.append(waiting)
            self._changed.notify_all()
        return waiting.future

    def close(self) -> None:
        """Writes what waits, and ends the thread."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join()

    def _work(self) -> None:
        while batch := self._next_batch():
            self._go_on(batch)
            self._put_back([one for one in batch if not _end(one)])

    def _next_batch(self) -> list[_Waiting]:
        """Waits for answers; empty when the queue is closed and nothing is left."""
        with self._changed:
            while True:
                self._waiting = deque(one for one in self._waiting if not _end(one))
                if self._waiting:
                    return self._taken()
                if self._is_closed:
                    return []
                self._changed.wait()

    def _taken(self) -> list[_Waiting]:
        """The oldest answers, up to the first that does not fit any more."""
        taken: list[_Waiting] = []
        while self._waiting and self._fits([*taken, self._waiting[0]]):
            taken.append(self._waiting.popleft())
        return taken

    def _fits(self, batch: Sequence[_Waiting]) -> bool:
        longest = max(one.answer.num_prompt_tokens for one in batch) + max(one.answer.num_left for one in batch)
        return len(batch) == 1 or longest * len(batch) <= self._max_tokens

    def _put_back(self, batch: Sequence[_Waiting]) -> None:
        with self._changed:
            self._waiting.extend(batch)

    def _go_on(self, batch: Sequence[_Waiting]) -> None:
        """Writes a turn; where that fails, each answer has its own, so that one that cannot be written costs itself."""
        started = time.monotonic()
        for one in batch:
            one.queue_seconds += started - one.since
            one.batch_size = max(one.batch_size, len(batch))
        try:
            self._run([one.answer for one in batch], self._should_end)
        except Exception as error:  # noqa: BLE001 - the edge of a thread: whoever waits gets it
            if len(batch) == 1:
                with suppress(InvalidStateError):
                    batch[0].future.set_exception(error)
                return
            for one in batch:
                if not one.answer.is_over:
                    one.since = time.monotonic()
                    self._go_on([one])
            return
        for one in batch:
            one.since = time.monotonic()
            one.model_seconds += one.since - started

    def _should_end(self, num_tokens: int) -> bool:
        return num_tokens >= self._turn_tokens and any(not one.answer.is_over for one in tuple(self._waiting))


def _end(one: _Waiting) -> bool:
    """Whether an answer is over, of which whoever waits for it is told."""
    if not one.future.done() and one.answer.is_over:
        with suppress(InvalidStateError):
            one.future.set_result(Written(one.queue_seconds, one.model_seconds, one.batch_size))
    return one.future.done()
