import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ivcp.storage import owner
from ivcp.storage.claims import OWNER_FILE, Claim, InUseError
from ivcp.storage.owner import one_at_a_time, owned

OWNER = """
import multiprocessing, sys, time
from ivcp.storage.owner import owned
with owned(sys.argv[1]):
    if sys.argv[2:]:
        multiprocessing.get_context("fork").Process(target=time.sleep, args=(float(sys.argv[2]),)).start()
    print("owned", flush=True)
    time.sleep(600)
"""


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(folder), *arguments], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "owned\n"
    return process


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    with start(tmp_path) as process:
        yield process
        process.kill()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(owner, "SILENCE_SECONDS", 0.5)


def elsewhere(**changes: object) -> Claim:
    return Claim.new().model_copy(update={"process": 7, "host": "elsewhere", "boot": "another", **changes})


def test_a_folder_has_one_owner_who_is_named(other: subprocess.Popen[str], tmp_path: Path) -> None:
    named = rf"process {other.pid} on {socket.gethostname()} works in .*: stop it"
    with pytest.raises(InUseError, match=named), owned(tmp_path, advice="stop it"):
        raise AssertionError


def test_a_killed_owner_is_gone_at_once(other: subprocess.Popen[str], tmp_path: Path) -> None:
    other.send_signal(signal.SIGKILL)
    other.wait()
    for _ in range(2):
        began = time.monotonic()
        with owned(tmp_path):
            assert Claim.model_validate_json((tmp_path / OWNER_FILE).read_bytes()).process == os.getpid()
        assert time.monotonic() - began < owner.BEAT_SECONDS
    assert not (tmp_path / OWNER_FILE).exists()


def test_worker_processes_that_outlive_a_killed_owner_are_waited_for(tmp_path: Path) -> None:
    with start(tmp_path, "2") as process:
        process.kill()
        process.wait()
        with owned(tmp_path) as ownership:
            ownership.check()


def test_a_thread_may_own_twice_what_it_owns(tmp_path: Path) -> None:
    with owned(tmp_path) as first:
        with owned(tmp_path / ".." / tmp_path.name) as second:
            assert second is first
        assert (tmp_path / OWNER_FILE).read_bytes()


def test_of_several_threads_one_is_the_owner(tmp_path: Path) -> None:
    refused = []

    def work() -> None:
        try:
            with owned(tmp_path):
                time.sleep(0.5)
        except InUseError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 3


@pytest.mark.usefixtures("quick")
def test_an_owner_on_another_machine_is_known_by_its_signs_of_life(tmp_path: Path) -> None:
    ended = threading.Event()

    def live() -> None:
        beat = 0
        while not ended.wait(0.05):
            beat += 1
            (tmp_path / OWNER_FILE).write_text(elsewhere(claim="a", beat=beat).model_dump_json())

    thread = threading.Thread(target=live)
    thread.start()
    time.sleep(0.3)
    with pytest.raises(InUseError, match="process 7 on elsewhere works in"), owned(tmp_path):
        raise AssertionError
    ended.set()
    thread.join()


@pytest.mark.usefixtures("quick")
def test_a_silent_owner_on_another_machine_is_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / OWNER_FILE).write_text(elsewhere().model_dump_json())
    with pytest.raises(InUseError, match="process 7 on elsewhere"), owned(tmp_path, watch=False):
        raise AssertionError
    with owned(tmp_path):
        assert "process 7 on elsewhere" in caplog.text
        assert "is silent: going on in its place" in caplog.text


@pytest.mark.usefixtures("quick")
def test_who_was_replaced_learns_of_it_and_leaves_the_new_claim_alone(tmp_path: Path) -> None:
    with owned(tmp_path) as ownership:
        ownership.check()
        taken = elsewhere().model_dump_json()
        (tmp_path / OWNER_FILE).write_text(taken)
        time.sleep(0.5)
        with pytest.raises(InUseError, match="process 7 on elsewhere has taken over"):
            ownership.check()
    assert (tmp_path / OWNER_FILE).read_text() == taken


def test_what_cannot_be_read_is_nobody(tmp_path: Path) -> None:
    (tmp_path / OWNER_FILE).write_text("process 12 on")
    with owned(tmp_path):
        assert Claim.model_validate_json((tmp_path / OWNER_FILE).read_bytes()).process == os.getpid()


def test_who_chooses_waits_and_leaves_the_folder_usable(tmp_path: Path) -> None:
    entered = threading.Event()

    def choose() -> None:
        with one_at_a_time(tmp_path):
            entered.set()

    second = threading.Thread(target=choose)
    with one_at_a_time(tmp_path):
        second.start()
        assert not entered.wait(0.3)
    second.join(10)
    assert entered.is_set()
