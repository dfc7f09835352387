"""The queue of answers: who goes on with whom, whose turn it is, and what happens to those that nobody wants."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from ivcp.serving.language.answer_queue import AnswerQueue


@dataclass
class Answer:
    """As long as its name says."""

    name: str
    length: int
    num_prompt_tokens: int = 10
    is_cancelled: bool = False
    written: int = 0

    @property
    def num_left(self) -> int:
        return self.length - self.written

    @property
    def is_over(self) -> bool:
        return self.is_cancelled or self.num_left == 0


@dataclass
class Model:
    """Writes a token of each answer at each step, and notes who was written together."""

    turns: list[str] = field(default_factory=list)
    begun: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    may_begin: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def __call__(self, answers: Sequence[Answer], should_end: Callable[[int], bool]) -> None:
        self.begun.release()
        self.may_begin.acquire()
        self.turns.append("".join(answer.name for answer in answers))
        if any(answer.name == "x" for answer in answers):
            raise ValueError("x cannot be written")
        steps = 0
        while not all(answer.is_over for answer in answers) and not (steps and should_end(steps)):
            steps += 1
            for answer in answers:
                answer.written += not answer.is_over


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def queue(model: Model) -> Iterator[AnswerQueue]:
    made = AnswerQueue(model, max_tokens=100, turn_tokens=4)  # type: ignore[arg-type]
    yield made
    model.may_begin.release(100)
    made.close()


def test_who_comes_later_joins_at_the_next_turn(queue: AnswerQueue, model: Model) -> None:
    long = queue.submit(Answer("a", 12))
    model.begun.acquire()
    short = queue.submit(Answer("b", 3))
    model.may_begin.release(100)
    written = long.result(30)
    short.result(30)
    assert model.turns == ["a", "ba"]
    assert written.batch_size == 2


def test_where_there_is_no_room_they_take_turns(queue: AnswerQueue, model: Model) -> None:
    first = queue.submit(Answer("a", 60))
    model.begun.acquire()
    others = [queue.submit(Answer("b", 8, num_prompt_tokens=60)), queue.submit(Answer("c", 4, num_prompt_tokens=60))]
    model.may_begin.release(100)
    for future in (first, *others):
        future.result(30)
    assert model.turns == ["a", "b", "c", "a", "b", "a"]


def test_one_that_cannot_be_written_costs_itself(queue: AnswerQueue, model: Model) -> None:
    first = queue.submit(Answer("a", 1))
    model.begun.acquire()
    wrong, right = queue.submit(Answer("x", 3)), queue.submit(Answer("b", 3))
    model.may_begin.release(100)
    first.result(30)
    assert right.result(30).batch_size == 2
    with pytest.raises(ValueError, match="x cannot be written"):
        wrong.result(30)


def test_one_that_nobody_wants_is_not_begun(queue: AnswerQueue, model: Model) -> None:
    first, left = Answer("a", 1), Answer("b", 50)
    future = queue.submit(first)
    model.begun.acquire()
    unwanted = queue.submit(left)
    left.is_cancelled = True
    model.may_begin.release(100)
    future.result(30)
    unwanted.result(30)
    assert (model.turns, left.written) == (["a"], 0)


def test_what_was_handed_in_is_written_before_it_closes(model: Model) -> None:
    queue = AnswerQueue(model, max_tokens=100, turn_tokens=4)  # type: ignore[arg-type]
    futures = [queue.submit(Answer(name, 9)) for name in "abc"]
    model.may_begin.release(100)
    queue.close()
    assert all(future.done() for future in futures)
    with pytest.raises(RuntimeError, match="being unloaded"):
        queue.submit(Answer("d", 1))
