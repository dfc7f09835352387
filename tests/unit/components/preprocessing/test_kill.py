"""Preparation that is killed again and again ends with the bytes of a run that nobody disturbed."""

import os
import signal
import time

import numpy as np
import pytest

from components.data_validation.validate import validate_data
from components.preprocessing import plan
from components.preprocessing.prepare import prepare_clips
from components.shards import PARTIAL
from tests.data_sets import make_clip, sharegpt_row
from tests.unit.components.preprocessing.conftest import contents

KILLS, CLIPS = 20, 24


@pytest.fixture
def run(data_set, settings, tmp_path, monkeypatch):
    """Starts preparation below a folder: `run("name")`."""
    monkeypatch.setattr(plan, "CLIPS_PER_SHARD", 4)
    rows = []
    for number in range(CLIPS):
        make_clip(data_set.folder / f"{number}.mp4", seed=number)
        rows.append(sharegpt_row(f"{number}.mp4", number % 2))
    config = data_set.add("actions", rows).config(**settings | {"preprocessing_num_workers": 1})
    validate_data(config, tmp_path / "validated")

    def start(folder):
        return prepare_clips(
            config,
            validated_dir=tmp_path / "validated",
            shards_uri=str(tmp_path / folder),
            index_path=tmp_path / folder / "copy.json",
        )

    return start


def run_and_kill(run, folder, seconds):
    """Whether the run was killed before it ended; its workers' pipes break with it."""
    pid = os.fork()
    if not pid:
        os.setsid()
        run(folder)
        os._exit(0)
    time.sleep(seconds)
    os.killpg(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1] == signal.SIGKILL


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
def test_shards_after_kills_are_those_of_an_undisturbed_run(run, tmp_path):
    started = time.monotonic()
    run("whole")
    longest = time.monotonic() - started
    rng, progress, killed = np.random.default_rng(0), [], 0
    for _ in range(KILLS):
        killed += run_and_kill(run, "killed", rng.uniform(0.2, 0.6) * longest)
        progress.append(len(list((tmp_path / "killed").glob("*/*.arrow"))))
    run("killed")

    assert killed >= 1
    assert progress == sorted(progress)  # what was finished stays
    assert not list((tmp_path / "killed").rglob(f"*{PARTIAL}"))
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
