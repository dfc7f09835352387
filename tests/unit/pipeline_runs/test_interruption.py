import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from ivcp.pipeline_runs.interruption import Interruption, end_leftovers

PATIENT = "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: (print('a checkpoint'), sys.exit(75)))\n"
SLEEPS = "print('ready', flush=True)\ntime.sleep(600)\n"


def send_when(ready, number: int, *, times: int = 1) -> None:
    """Sends a signal to this process when `ready()` is true."""

    def send() -> None:
        for _ in range(times):
            while not ready():
                time.sleep(0.05)
            time.sleep(0.3)
            os.kill(os.getpid(), number)

    threading.Thread(target=send, daemon=True).start()


@pytest.fixture(autouse=True)
def no_signal_is_ignored():
    """Where the tests run under nohup, SIGHUP is."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if handler is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def shown(capfd):
    """Whether a text was written so far."""
    seen: list[str] = []

    def ask(text: str) -> bool:
        seen.append(capfd.readouterr().out)
        return text in "".join(seen)

    return ask


def test_a_step_gives_its_output_and_its_code(capfd):
    code = Interruption().run_process([sys.executable, "-c", "print('out'); raise SystemExit(3)"], {"A": "b"})
    assert code == 3
    assert capfd.readouterr().out.startswith("out\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_lets_a_step_end_in_order_and_nothing_else_start(number, shown):
    interruption, before = Interruption(), signal.getsignal(number)
    with interruption.listening():
        send_when(lambda: shown("ready"), number)
        code = interruption.run_process(["sh", "-c", f'"{sys.executable}" -c "{PATIENT}{SLEEPS}"; exit $?'])
        assert code != 0
        assert interruption.requested
        assert interruption.run_process([sys.executable, "-c", "print('started')"]) == 1
    assert shown("a checkpoint")
    assert not shown("started")
    assert signal.getsignal(number) is before


def test_the_second_signal_ends_a_step_that_does_not_listen(shown):
    deaf = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    interruption = Interruption()
    with interruption.listening():
        send_when(lambda: shown("ready"), signal.SIGINT, times=2)
        assert interruption.run_process([sys.executable, "-c", deaf + SLEEPS]) == -signal.SIGKILL


def test_what_started_while_the_signal_came_is_ended(shown):
    interruption = Interruption()
    interruption.requested = True
    ended = []
    with interruption.ends(ended.append):
        assert ended == [signal.SIGTERM]


def test_a_signal_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interruption().listening():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_processes_of_a_killed_run_are_found_by_their_environment():
    def begin(value: str) -> subprocess.Popen[bytes]:
        command = ["sh", "-c", "sleep 600 & wait"]
        return subprocess.Popen(command, env={**os.environ, "RUN_OF_TEST": value}, start_new_session=True)

    ours, other = begin("/runs/a/steps"), begin("/runs/ab/steps")
    try:
        time.sleep(0.5)
        assert end_leftovers("RUN_OF_TEST", "/runs/a/steps") == 2
        ours.wait(timeout=10)
        assert other.poll() is None
        assert end_leftovers("RUN_OF_TEST", "/runs/a/steps") == 0
    finally:
        os.killpg(other.pid, signal.SIGKILL)
        other.wait()
