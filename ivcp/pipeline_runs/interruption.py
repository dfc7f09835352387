"""Ctrl-C, SIGTERM and a closed terminal: what runs is ended in order, and nothing else is started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType

import psutil

GRACE_SECONDS = 120.0
"""From SIGTERM to SIGKILL: training finishes its step and writes a checkpoint."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_TOLD = (
    b"\ninterrupted: the step is ended, training writes a checkpoint first; once more ends it at once. "
    b"The same command goes on.\n"
)

End = Callable[[int], None]
"""Sends a signal to something that runs."""


class Interruption:
    """Whether a run was told to end, and what has to be ended then."""

    def __init__(self) -> None:
        self.requested = False
        self._running: dict[int, End] = {}
        self._last_resort: threading.Timer | None = None

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Inside, the signals are remembered and passed on to what runs; those that are ignored stay so.

        Only a main thread can listen.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        heard = [number for number, handler in before.items() if handler != signal.SIG_IGN]
        for number in heard:
            signal.signal(number, self._request)
        try:
            yield
        finally:
            for number in heard:
                signal.signal(number, before[number])
            if self._last_resort is not None:
                self._last_resort.cancel()

    @contextlib.contextmanager
    def ends(self, end: End) -> Iterator[None]:
        """Inside, something runs that `end` ends."""
        self._running[id(end)] = end
        if self.requested:  # between the question whether it may start and its start
            end(signal.SIGTERM)
        try:
            yield
        finally:
            del self._running[id(end)]

    def run_process(self, full_command: Sequence[str], env_vars: Mapping[str, str] | None = None) -> int:
        """Runs a step's command, prints what it writes, and gives its exit code; KFP's function has the same face.

        The step has a session of its own: Ctrl-C reaches it through this process, which lets it end in order.
        """
        if self.requested:
            return 1
        environment = {**os.environ, **(env_vars or {})}
        with (
            subprocess.Popen(
                full_command,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                bufsize=1,
                env=environment,
                start_new_session=True,
            ) as process,
            self.ends(lambda number: _signal_group(process.pid, number)),
        ):
            assert process.stdout is not None
            for line in process.stdout:  # until the last process of the step is gone
                print(line, end="")  # noqa: T201 (KFP's log of the step)
            print("\n")  # noqa: T201
            return process.wait()

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            self._end_all(signal.SIGKILL)
            return
        self.requested = True
        with contextlib.suppress(OSError):  # the terminal may be closed
            os.write(2, _TOLD)  # what may have been interrupted is a print
        self._end_all(signal.SIGTERM)
        self._last_resort = threading.Timer(GRACE_SECONDS, self._end_all, (signal.SIGKILL,))
        self._last_resort.daemon = True
        self._last_resort.start()

    def _end_all(self, number: int) -> None:
        for end in list(self._running.values()):
            end(number)


@contextlib.contextmanager
def own_processes(interruption: Interruption) -> Iterator[None]:
    """Lets KFP start its steps' processes by `Interruption.run_process`; its own cannot be ended in order."""
    from kfp.local import subprocess_task_handler

    theirs = subprocess_task_handler.run_local_subprocess
    subprocess_task_handler.run_local_subprocess = interruption.run_process
    try:
        yield
    finally:
        subprocess_task_handler.run_local_subprocess = theirs


def end_leftovers(variable: str, value: str) -> int:
    """Ends the processes of this user whose environment has `variable` with `value`; how many there were.

    They are steps of a run whose own process was killed.
    """
    found = [process for process in psutil.process_iter() if _has(process, variable, value)]
    for process in found:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, alive = psutil.wait_procs(found, timeout=GRACE_SECONDS)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive)
    return len(found)


def _show_output(process: subprocess.Popen[str]) -> int:
    """Prints what a step writes until the last of its processes is gone, and gives its exit code."""
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="")  # noqa: T201 (KFP's log of the step)
    print("\n")  # noqa: T201
    return process.wait()


def _has(process: psutil.Process, variable: str, value: str) -> bool:
    if process.pid == os.getpid():
        return False
    try:
        return bool(process.environ().get(variable) == value)
    except (psutil.Error, OSError):  # another user's, or gone
        return False


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)
