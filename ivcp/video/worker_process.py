"""One worker process: it does calls one after another, is killed when one takes too long, and replaced when it died.

Each process has a connection of its own: one that dies leaves no lock behind that others wait for.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any

from ivcp.video.files import VideoError

# Not fork: torch, MLflow and progress bars have threads here, whose locks a fork would copy.
CONTEXT = multiprocessing.get_context("forkserver")
_MOST_STARTS = 3
_KILL_SECONDS = 5.0
"""A killed process that waits for a dead disk ends later: whoever killed it does not wait with it."""
_bookkeeping = threading.Lock()
"""Held to start a process or to ask for its end: multiprocessing asks for that of all at each start."""
_BEGUN = pickle.dumps((None, None))
"""What a process sends when it has a task and an item: importing their modules does not count as the call's time."""


class WorkerStartError(RuntimeError):
    """Worker processes die before they can do anything."""


class WorkerStoppedError(RuntimeError):
    """The worker was stopped before the call was done."""


class _DiedError(Exception):
    def __init__(self, exit_code: int | None) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code

    def __str__(self) -> str:
        killed = " (killed from outside: most likely memory ran out)" if self.exit_code == -signal.SIGKILL else ""
        return f"died with exit code {self.exit_code}{killed}"


class _TookTooLongError(Exception):
    pass


@dataclass(frozen=True)
class WorkerSetup:
    """What a new process does before its first call."""

    environment: dict[str, str]
    """The server that workers are forked from has that of an earlier time."""
    initializer: Callable[..., None] | None
    initargs: tuple[object, ...]
    memory_gigabytes: float | None
    """What it may take beyond what it has then."""

    def apply(self) -> None:
        """Makes the running process a worker."""
        os.environ.update(self.environment)
        if self.initializer is not None:
            self.initializer(*self.initargs)
        if self.memory_gigabytes is not None:
            limit_memory(self.memory_gigabytes)


class WorkerProcess:
    """A process that does calls, or the one that took its place; used by one thread, but for `stop`."""

    def __init__(self, setup: WorkerSetup) -> None:
        self._setup = setup
        self._process: BaseProcess | None = None
        self._connection: Connection | None = None
        self._is_stopped = False
        self.failure: Exception | None = None
        """Why the last start failed; null where it did not."""

    def start(self) -> None:
        """Starts a process where none runs, and waits until it can do calls.

        Raises:
            WorkerStartError: it died, and so did those that were started after it.
            WorkerStoppedError: the worker was stopped.
            Exception: the initializer raised it.
        """
        self._until_alive(lambda: None)

    def call(self, call: bytes, *, timeout_seconds: float | None) -> Any:
        """Calls a task with an item, both pickled; a process that died idle is replaced first.

        Raises:
            VideoError: the process took too long ("timeout"), died ("crashed"), or may not have the memory that it
                asked for ("out_of_memory"); or the task raised it.
            WorkerStartError: no process starts.
            WorkerStoppedError: the worker was stopped.
            Exception: the task raised it.
        """
        try:
            self._until_alive(lambda: self._begin(call))
            return _unwrap(self._receive(timeout_seconds))
        except MemoryError as error:
            raise VideoError("out_of_memory", "it takes more memory than a worker process may have") from error
        except _TookTooLongError as error:
            self._end()
            raise VideoError(
                "timeout", f"not done within {timeout_seconds:g} s; its worker process was killed"
            ) from error
        except _DiedError as error:
            raise VideoError("crashed", f"its worker process {error}") from error

    def stop(self) -> None:
        """Kills the process for good; for any thread."""
        with _bookkeeping:
            self._is_stopped = True
            process = self._process
            if process is not None and process.is_alive():
                process.kill()

    def wait(self) -> None:
        """Waits until the process of a stopped worker has ended."""
        if self._process is not None:
            self._end()

    def _until_alive(self, use: Callable[[], None]) -> None:
        for _ in range(_MOST_STARTS):
            try:
                if not self._is_alive():
                    self._start_noted()
                return use()
            except _DiedError as error:
                died = error
        self.failure = WorkerStartError(
            f"{_MOST_STARTS} worker processes in a row could not start: the last one {died}"
        )
        raise self.failure from died

    def _start_noted(self) -> None:
        try:
            self._start_new()
        except _DiedError:
            raise  # it is tried again
        except Exception as error:
            self.failure = error
            raise
        self.failure = None

    def _is_alive(self) -> bool:
        with _bookkeeping:
            return self._process is not None and self._process.is_alive()

    def _start_new(self) -> None:
        self._connection, theirs = CONTEXT.Pipe()
        with theirs, _bookkeeping:
            if self._is_stopped:
                raise WorkerStoppedError("the worker processes were stopped")
            process = CONTEXT.Process(target=_serve, args=(theirs, self._setup), daemon=True)
            with _without_main_module():
                process.start()
            self._process = process
        answer = self._receive(None)
        try:
            _unwrap(answer)
        except BaseException:
            self._end()
            raise

    def _begin(self, call: bytes) -> None:
        assert self._connection is not None
        with suppress(OSError):  # it died idle
            self._connection.send_bytes(call)
        _unwrap(self._receive(None))

    def _receive(self, timeout_seconds: float | None) -> bytes:
        assert self._connection is not None
        assert self._process is not None
        if not wait([self._connection, self._process.sentinel], timeout_seconds):
            raise _TookTooLongError
        with suppress(EOFError, OSError):
            if self._connection.poll():  # else the process has ended, and a child of it holds the connection
                return self._connection.recv_bytes()
        exit_code = self._end()
        if self._is_stopped:
            raise WorkerStoppedError("the worker processes were stopped before this call was done")
        raise _DiedError(exit_code)

    def _end(self) -> int | None:
        """Kills the process if it runs; its exit code."""
        assert self._connection is not None
        assert self._process is not None
        process, self._process = self._process, None
        self._connection.close()
        with _bookkeeping:
            if process.is_alive():
                process.kill()
        wait([process.sentinel], _KILL_SECONDS)
        with _bookkeeping:
            return process.exitcode


@contextmanager
def _without_main_module() -> Iterator[None]:
    """Inside, processes start without the program's main module, which multiprocessing would import in each of them.

    A user's script would run again there, unless it guards itself with `if __name__ == "__main__"`.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


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


def _serve(connection: Connection, setup: WorkerSetup) -> None:
    """What the process does, as long as somebody holds the other end of its connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the pool's owner ends its workers
    with suppress(EOFError, ConnectionError):
        connection.send_bytes(_answer(setup.apply))
        while True:
            call = partial(_do, connection.recv_bytes(), connection)
            connection.send_bytes(_answer(call))


def _do(call: bytes, connection: Connection) -> object:
    task, item = pickle.loads(call)
    connection.send_bytes(_BEGUN)
    return task(item)


def _answer(work: Callable[[], object]) -> bytes:
    try:
        return pickle.dumps((work(), None), pickle.HIGHEST_PROTOCOL)
    except Exception as error:  # noqa: BLE001 - the edge of a process: it goes to the caller
        if not isinstance(error, VideoError):
            error.add_note(f"in a worker process:\n{traceback.format_exc()}")
        return pickle.dumps((None, _as_sendable(error)))


def _as_sendable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - pickling calls the exception's own code
        return RuntimeError("".join(traceback.format_exception_only(error)))
    return error


def _unwrap(answer: bytes) -> Any:
    result, error = pickle.loads(answer)
    if error is not None:
        raise error
    return result
