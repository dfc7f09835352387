"""Runs tasks in worker processes that can be killed: a bad video ends its own task and no other."""

from __future__ import annotations

import atexit
import os
import pickle
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, TypeVar

from ivcp.socket_paths import make_socket_paths_fit
from ivcp.video.files import VideoError
from ivcp.video.worker_process import CONTEXT, WorkerProcess, WorkerSetup, WorkerStoppedError

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

DEFAULT_MEMORY_GIGABYTES = 4.0
"""Enough for video of 8192x8192 pixels, where a decoder holds a few frames."""
_LOOK_SECONDS = 0.5
"""Between two looks whether an idle process lives, where a pool keeps them alive."""
_AHEAD_PER_WORKER = 32
"""Items in flight, by their size: bounds the results that wait in memory for an earlier, slower one."""


@dataclass(frozen=True)
class _Call:
    task_and_item: bytes
    timeout_seconds: float | None
    future: Future[Any] = field(default_factory=Future)


class WorkerPool:
    """Worker processes that each do one call at a time; any thread may hand calls in.

    A call that takes too long has its process killed ("timeout"); a process that dies takes only its call with it
    ("crashed"), and none when it had nothing to do. Both are replaced.
    """

    def __init__(
        self,
        num_workers: int | None = None,
        *,
        preload: Sequence[str] = (),
        initializer: Callable[..., None] | None = None,
        initargs: Sequence[object] = (),
        memory_gigabytes: float | None = DEFAULT_MEMORY_GIGABYTES,
        keeps_alive: bool = False,
    ) -> None:
        """Starts no process: each of the first calls starts one.

        Args:
            num_workers: processes; null is one per core.
            preload: modules that are imported once and shared by all workers, before their first task.
            initializer: called in each new worker process.
            initargs: its arguments.
            memory_gigabytes: what a worker may take beyond what it starts with; null sets no limit. More is a
                `VideoError` ("out_of_memory") of the video that asked for it.
            keeps_alive: whether a process that died with nothing to do is replaced at once, and not by the next call.
        """
        self._look_seconds = _LOOK_SECONDS if keeps_alive else None
        self.num_workers = num_workers or available_cores()
        make_socket_paths_fit()
        CONTEXT.set_forkserver_preload(list(preload))
        self._setup = WorkerSetup(dict(os.environ), initializer, tuple(initargs), memory_gigabytes)
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._workers: list[tuple[WorkerProcess, threading.Thread]] = []
        self._lock = threading.Lock()
        self._is_closed = False
        atexit.register(self.close)

    def start(self) -> Future[None]:
        """Starts a worker, which may take seconds; the future is done when it can work.

        The future raises what the initializer raised, or `WorkerStartError`.
        """
        return self.submit(_do_nothing, None, timeout_seconds=None)

    def submit(
        self, task: Callable[[ItemT], ResultT], item: ItemT, *, timeout_seconds: float | None
    ) -> Future[ResultT]:
        """Calls `task`, a function at the top of a module, with `item` in a worker process.

        The module must not be `__main__`: workers do not import that, so that no script runs again in them.

        The future raises `VideoError` for a call that took too long, crashed or wanted too much memory, and whatever
        the task raised. Starting a worker does not count as the call's time.

        Raises:
            WorkerStoppedError: the pool is closed.
            PicklingError, AttributeError, TypeError: the task or the item cannot be sent to another process.
        """
        call = _Call(pickle.dumps((task, item), pickle.HIGHEST_PROTOCOL), timeout_seconds)
        with self._lock:
            if self._is_closed:
                raise WorkerStoppedError("the worker pool is closed")
            if len(self._workers) < self.num_workers:
                self._add_worker()
            self._calls.put(call)
        return call.future

    def run(
        self,
        task: Callable[[ItemT], ResultT],
        items: Iterable[ItemT],
        *,
        timeout_seconds: float,
        size: Callable[[ItemT], int] = lambda _: 1,
    ) -> Generator[tuple[ItemT, ResultT | VideoError], None, None]:
        """Yields each item with the task's result, or with its `VideoError`, in the order of `items`.

        Other exceptions of the task are raised here.

        Args:
            task: a function at the top of a module, called in a worker process.
            items: what to call it with; read as workers become free.
            timeout_seconds: time limit of one result.
            size: how many results an item brings at once; the time limit is multiplied by it.
        """
        in_flight: deque[tuple[ItemT, Future[ResultT]]] = deque()
        num_results = 0
        try:
            for item in items:
                in_flight.append((item, self.submit(task, item, timeout_seconds=timeout_seconds * size(item))))
                num_results += size(item)
                while num_results >= self.num_workers * _AHEAD_PER_WORKER and len(in_flight) > self.num_workers:
                    done = _outcome(*in_flight.popleft())
                    num_results -= size(done[0])
                    yield done
            while in_flight:
                last = _outcome(*in_flight.popleft())
                yield last
        finally:
            for _, future in in_flight:
                future.cancel()

    def failures(self) -> list[Exception | None]:
        """Of each worker that was ever needed: why its last start failed; null where it runs, or is being started."""
        return [worker.failure for worker, _ in self._workers]

    def close(self) -> None:
        """Kills the worker processes and waits for their end; calls that are not done raise `WorkerStoppedError`."""
        with self._lock:
            self._is_closed = True
        atexit.unregister(self.close)
        for worker, _ in self._workers:
            worker.stop()
            self._calls.put(None)
        for _, thread in self._workers:
            thread.join()

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _add_worker(self) -> None:
        worker = WorkerProcess(self._setup)
        thread = threading.Thread(target=self._do_calls, args=(worker,), name="worker-pool", daemon=True)
        self._workers.append((worker, thread))
        thread.start()

    def _do_calls(self, worker: WorkerProcess) -> None:
        """What the thread of one worker does until the pool is closed."""
        while True:
            with suppress(Exception):  # the next call tries again, and raises it
                worker.start()
            try:
                call = self._calls.get(timeout=self._look_seconds)
            except Empty:
                continue
            if call is None:
                return worker.wait()
            _do_call(worker, call)
            del call  # with its result


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
    """`WorkerPool.run` with a pool of its own, which is closed at the end; see both for the arguments."""
    with WorkerPool(
        num_workers,
        preload=preload,
        initializer=initializer,
        initargs=initargs,
        memory_gigabytes=memory_gigabytes,
    ) as pool:
        yield from pool.run(task, items, timeout_seconds=timeout_seconds, size=size)


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


def _do_call(worker: WorkerProcess, call: _Call) -> None:
    if not call.future.set_running_or_notify_cancel():
        return
    try:
        result = worker.call(call.task_and_item, timeout_seconds=call.timeout_seconds)
    except Exception as error:  # noqa: BLE001 - the edge of a thread: whoever waits for the call gets it
        call.future.set_exception(error)
    else:
        call.future.set_result(result)


def _do_nothing(_: None) -> None:
    pass


def _outcome(item: ItemT, future: Future[ResultT]) -> tuple[ItemT, ResultT | VideoError]:
    try:
        return item, future.result()
    except VideoError as error:
        return item, error
