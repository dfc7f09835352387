"""Runs a task on many videos in worker processes that can be killed: a bad video costs itself and nothing else."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

from pebble import ProcessExpired, ProcessPool

from ivcp.video.files import VideoError

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

DEFAULT_MEMORY_GIGABYTES = 4.0
"""Enough for video of 8192x8192 pixels, where a decoder holds a few frames."""
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
    memory_gigabytes: float | None = DEFAULT_MEMORY_GIGABYTES,
) -> Iterator[tuple[ItemT, ResultT | VideoError]]:
    """Yields each item with the task's result, or with the `VideoError` that it raised, in the order of `items`.

    A task that takes longer than `timeout_seconds` has its process killed ("timeout"); a process that dies takes
    only its item with it ("crashed"). Both are replaced. Other exceptions of the task are raised here.

    Args:
        task: a function at the top of a module, called in a worker process.
        items: what to call it with; read as workers become free.
        timeout_seconds: time limit of one result; starting a worker does not count.
        num_workers: processes; null is one per core.
        preload: modules that are imported once and shared by all workers, before their first task.
        initializer: called in each new worker process.
        initargs: its arguments.
        size: how many results an item brings at once; the time limit is multiplied by it.
        memory_gigabytes: what a worker may take beyond what it starts with; null sets no limit. More is a `VideoError`
            ("out_of_memory") of the video that asked for it.
    """
    workers = num_workers or available_cores()
    # Not fork: torch, MLflow and progress bars have threads here, whose locks a fork would copy.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    pool = ProcessPool(
        workers,
        initializer=_start_worker,
        initargs=[dict(os.environ), memory_gigabytes, initializer, initargs],
        context=context,
    )
    in_flight: deque[tuple[ItemT, Future[ResultT]]] = deque()
    finished, num_results = False, 0
    try:
        for item in items:
            in_flight.append((item, pool.schedule(task, args=[item], timeout=timeout_seconds * size(item))))
            num_results += size(item)
            while num_results >= workers * _AHEAD_PER_WORKER and len(in_flight) > workers:
                done = _outcome(*in_flight.popleft())
                num_results -= size(done[0])
                yield done
        while in_flight:
            last = _outcome(*in_flight.popleft())
            yield last
        finished = True
    finally:
        pool.close() if finished else pool.stop()
        pool.join()


_CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")
"""Where a container finds its limit of CPU time: microseconds in each period, or `max`."""


def available_cores(limit_file: Path = _CPU_LIMIT) -> int:
    """Cores that this process may use: those of the machine, or fewer where its container has a limit."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    try:
        quota, period = limit_file.read_text(encoding="ascii").split()
    except (OSError, ValueError):  # no cgroup v2
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))


def limit_memory(gigabytes: float) -> None:
    """Lets this process take that much memory for data beyond what it has: asking for more is a MemoryError.

    Does nothing where the system has no such limit.
    """
    if sys.platform != "linux":
        return
    import resource  # not on every system

    pages = int(Path("/proc/self/statm").read_text().split()[5])
    most = pages * resource.getpagesize() + int(gigabytes * 1e9)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _start_worker(
    environment: dict[str, str],
    memory_gigabytes: float | None,
    initializer: Callable[..., None] | None,
    initargs: Sequence[object],
) -> None:
    os.environ.update(environment)  # the server that workers are forked from has that of an earlier time
    if memory_gigabytes is not None:
        limit_memory(memory_gigabytes)
    if initializer is not None:
        initializer(*initargs)


def _outcome(item: ItemT, future: Future[ResultT]) -> tuple[ItemT, ResultT | VideoError]:
    try:
        return item, future.result()
    except VideoError as error:
        return item, error
    except MemoryError:
        return item, VideoError("out_of_memory", "it takes more memory than a worker process may have")
    except TimeoutError as error:
        return item, VideoError("timeout", f"not done within {error.args[1]:g} s; its worker process was killed")
    except ProcessExpired as error:
        killed = " (killed from outside: most likely memory ran out)" if error.exitcode == -signal.SIGKILL else ""
        return item, VideoError("crashed", f"its worker process died with exit code {error.exitcode}{killed}")
