"""Preparation that is killed again and again ends with the bytes of a run that nobody disturbed."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import numpy as np
import pytest

from ivcp.demo.tiny_model import build_tiny_model
from ivcp.settings import save_config
from ivcp.storage.atomic import PARTIAL
from ivcp.validation.validate import validate_data
from tests.data_sets import make_clip, sharegpt_row
from tests.integration.torchrun import processes_environment

KILLS = int(os.environ.get("IVCP_KILLS", "2"))
CLIPS = 40 + 4 * KILLS


@pytest.fixture
def start(data_set, tmp_path):
    """Starts preparation below a folder, in a process group of its own: `start("name")`."""
    build_tiny_model(tmp_path / "base", warm_up=False)
    rows = []
    for number in range(CLIPS):
        make_clip(data_set.folder / f"{number}.mp4", seed=number)
        rows.append(sharegpt_row(f"{number}.mp4", number % 2))
    config = data_set.add("actions", rows).config(
        model_name_or_path=str(tmp_path / "base"), video_max_pixels=1024, near_duplicate_frames=0
    )
    validate_data(config, tmp_path / "validated")
    save_config(config, tmp_path / "run_config.json")

    def start(folder):
        words = [tmp_path / "run_config.json", tmp_path / "validated", tmp_path / folder]
        return subprocess.Popen(
            [sys.executable, "-m", "tests.integration.preparation.prepare_validated", *map(str, words)],
            env=processes_environment(),
            start_new_session=True,
        )

    return start


def finished(folder):
    return {path.name for path in folder.glob("*/*.arrow")}


def files(folder):
    """All files by their path; the folder's own path, which an index holds, is left out."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes().replace(str(folder).encode(), b"")
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.slow
def test_shards_after_kills_are_those_of_an_undisturbed_run(start, tmp_path):
    assert start("whole").wait(120) == 0
    rng, killed, folder = np.random.default_rng(0), 0, tmp_path / "killed"
    for _ in range(KILLS):
        before, process = finished(folder), start("killed")
        while finished(folder) == before and process.poll() is None:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.1))
        still_runs = process.poll() is None
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its workers and their server as well
        killed += process.wait() == -signal.SIGKILL and still_runs
        assert before <= finished(folder)  # what was finished stays
    assert start("killed").wait(120) == 0

    assert killed >= 1
    assert not list(folder.rglob(f"*{PARTIAL}"))
    assert files(folder) == files(tmp_path / "whole")
