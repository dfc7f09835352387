import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ivcp.pipeline_runs.run_lock import RunInUseError, held, one_at_a_time

HOLDER = """
import sys, time
from pathlib import Path
from ivcp.pipeline_runs.run_lock import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_folder_is_held_by_one_process_which_is_named(holder, tmp_path):
    named = rf"process {holder.pid} on {socket.gethostname()} works in .*: wait"
    with pytest.raises(RunInUseError, match=named), held(tmp_path, advice="wait"):
        raise AssertionError


def test_the_lock_ends_with_its_process_however_that_ends(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    for _ in range(2):
        with held(tmp_path):
            assert str(os.getpid()) in (tmp_path / "lock").read_text()


def test_another_hosts_process_is_believed_until_somebody_says_otherwise(tmp_path: Path):
    (tmp_path / "lock").write_text("process 7 on elsewhere")
    with pytest.raises(RunInUseError, match=r"process 7 on elsewhere .*remove .*lock"), held(tmp_path, advice="wait"):
        raise AssertionError
    (tmp_path / "lock").unlink()
    with held(tmp_path):
        assert "process" in (tmp_path / "lock").read_text()
    assert (tmp_path / "lock").read_text() == ""


def test_who_chooses_waits_and_leaves_the_folder_usable(tmp_path):
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
