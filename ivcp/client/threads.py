"""One call for each of many items, a few at a time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TypeVar

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

_AHEAD_PER_THREAD = 4
"""Items in flight: bounds the results that wait for an earlier, slower one."""


def in_threads(
    call: Callable[[ItemT], ResultT], items: Iterable[ItemT], *, num_threads: int
) -> Iterator[tuple[ItemT, ResultT]]:
    """Yields each item with what `call` returned for it, in the order of `items`, which are read as they are needed.

    The threads are daemons: whoever is interrupted does not wait for the calls in progress, as with a
    ThreadPoolExecutor. What `call` raises is raised here.
    """
    calls: SimpleQueue[tuple[Future[ResultT], ItemT] | None] = SimpleQueue()
    in_flight: deque[tuple[ItemT, Future[ResultT]]] = deque()
    for _ in range(num_threads):
        threading.Thread(target=_do_calls, args=(call, calls), name="client", daemon=True).start()
    try:
        for item in items:
            future = Future[ResultT]()
            in_flight.append((item, future))
            calls.put((future, item))
            while in_flight and (in_flight[0][1].done() or len(in_flight) >= num_threads * _AHEAD_PER_THREAD):
                yield _first_of(in_flight)
        while in_flight:
            yield _first_of(in_flight)
    finally:
        for _, future in in_flight:
            future.cancel()
        for _ in range(num_threads):
            calls.put(None)


def _first_of(in_flight: deque[tuple[ItemT, Future[ResultT]]]) -> tuple[ItemT, ResultT]:
    item, future = in_flight.popleft()
    return item, future.result()


def _do_calls(call: Callable[[ItemT], ResultT], calls: SimpleQueue[tuple[Future[ResultT], ItemT] | None]) -> None:
    while (found := calls.get()) is not None:
        future, item = found
        if not future.set_running_or_notify_cancel():
            continue
        try:
            future.set_result(call(item))
        except BaseException as error:  # noqa: BLE001 (the edge of a thread: whoever waits gets it)
            future.set_exception(error)
