"""Runs a task on many videos in worker processes that can be killed: a bad video costs itself and nothing else."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import TypeVar

from pebble import ProcessExpired, ProcessPool

from components.video_decoders import VideoError

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

_AHEAD_PER_WORKER = 32
"""Items in flight, by their size: bounds the results that wait in memory for an earlier, slower one."""


def run_in_workers(
    task: Callable[[ItemT], ResultT],
    items: Iterable[ItemT],
    *,
    timeout_seconds: float,
    num_workers: int | None = None,
    preload: Sequence[str] = (),
    initializer: Callable[..., None] | None = None,
    initargs: Sequence[object] = (),
    size: Callable[[ItemT], int] = lambda _: 1,
) -> Iterator[tuple[ItemT, ResultT | VideoError]]:
    """Yields each item with the task's result, or with the `VideoError` that it raised, in the order of `items`.

    A task that takes longer than `timeout_seconds` has its process killed ("timeout"); a process that dies takes
    only its item with it ("crashed"). Both are replaced. Other exceptions of the task are raised here.

    Args:
        task: a function at the top of a module, called in a worker process.
        items: what to call it with; read as workers become free.
        timeout_seconds: time limit of one call; starting a worker does not count.
        num_workers: processes; null is one per core.
        preload: modules that are imported once and shared by all workers, before their first task.
        initializer: called in each new worker process.
        initargs: its arguments.
        size: how many results an item brings at once.
    """
    workers = num_workers or available_cores()
    # Not fork: torch, MLflow and progress bars have threads here, whose locks a fork would copy.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    pool = ProcessPool(
        workers, initializer=_start_worker, initargs=[dict(os.environ), initializer, initargs], context=context
    )
    in_flight: deque[tuple[ItemT, Future[ResultT]]] = deque()
    finished, num_results = False, 0
    try:
        for item in items:
            in_flight.append((item, pool.schedule(task, args=[item], timeout=timeout_seconds)))
            num_results += size(item)
            while num_results >= workers * _AHEAD_PER_WORKER and len(in_flight) > workers:
                done = _outcome(*in_flight.popleft(), timeout_seconds)
                num_results -= size(done[0])
                yield done
        while in_flight:
            last = _outcome(*in_flight.popleft(), timeout_seconds)
            yield last
        finished = True
    finally:
        pool.close() if finished else pool.stop()
        pool.join()


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _start_worker(
    environment: dict[str, str], initializer: Callable[..., None] | None, initargs: Sequence[object]
) -> None:
    os.environ.update(environment)  # the server that workers are forked from has that of an earlier time
    if initializer is not None:
        initializer(*initargs)


def _outcome(item: ItemT, future: Future[ResultT], timeout_seconds: float) -> tuple[ItemT, ResultT | VideoError]:
    try:
        return item, future.result()
    except VideoError as error:
        return item, error
    except TimeoutError:
        return item, VideoError("timeout", f"not done within {timeout_seconds:g} s; its worker process was killed")
    except ProcessExpired as error:
        return item, VideoError("crashed", f"its worker process died with exit code {error.exitcode}")
