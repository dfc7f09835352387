"""A sweep through real trainings: it prefers what learns, and goes on where it was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient

from ivcp.demo.sample_data import generate_sample_data
from ivcp.demo.tiny_model import build_tiny_model
from ivcp.settings import ConfigError, load_config
from ivcp.sweep.result import BEST_FILE, SWEEP_FILE, SweepResult
from ivcp.sweep.space import read_space
from ivcp.sweep.study import SweepError, run_sweep

pytestmark = pytest.mark.slow
WORDS = ["learning_rate=1e-9,3e-3", "lora_rank=2..4"]


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    generate_sample_data(folder / "data", num_train_clips=44, num_test_clips=11)
    build_tiny_model(folder / "tiny", warm_up=False)
    settings = {
        "model_name_or_path": str(folder / "tiny"),
        "dataset_dir": str(folder / "data"),
        "dataset": "sample_train",
        "val_size": 0.25,
        "num_train_epochs": 3,
        "per_device_train_batch_size": 8,
        "video_num_frames": 2,
        "video_min_pixels": 2304,
        "video_max_pixels": 2304,
        "metric_for_best_model": "loss",
        "disable_gradient_checkpointing": True,
        "mlflow_tracking_uri": f"sqlite:///{folder}/mlflow.db",
    }
    (folder / "my.yaml").write_text(yaml.safe_dump(settings))
    return folder


def start(project: Path, trials: int) -> subprocess.Popen[str]:
    words = ["sweep", "my.yaml", *WORDS, "--trials", str(trials), "--jobs", "2", "--folder", "swept"]
    return subprocess.Popen(
        [sys.executable, "-m", "ivcp.cli.main", *words],
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def test_a_killed_sweep_goes_on_and_finds_what_learns(project):
    running, swept = start(project, 5), project / "swept"
    deadline = time.monotonic() + 300
    while not (swept / SWEEP_FILE).exists() or not SweepResult.read(swept / SWEEP_FILE).trials:
        assert running.poll() is None, running.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    before = SweepResult.read(swept / SWEEP_FILE).trials

    running = start(project, 5)
    shown, _ = running.communicate(timeout=600)
    assert running.returncode == 0, shown
    assert f"ivcp run swept/{BEST_FILE}" in shown
    found = SweepResult.read(swept / SWEEP_FILE)
    assert len(found.trials) == 5
    assert {trial.number for trial in before} <= {trial.number for trial in found.trials}
    assert found.best is not None
    assert found.best.settings["learning_rate"] == 3e-3
    rates = [trial.settings["learning_rate"] for trial in found.trials if trial.state == "complete"]
    assert rates == sorted(rates, reverse=True), "a rate of 1e-9 learns nothing"
    assert not list(swept.glob("trials/*/model")), "weights of trials are not kept"
    best = load_config(swept / BEST_FILE)
    assert best.train.learning_rate == 3e-3
    assert best.method.lora_rank == found.best.settings["lora_rank"]

    client = MlflowClient(tracking_uri=f"sqlite:///{project}/mlflow.db")
    (experiment,) = [each for each in client.search_experiments() if each.name == "ivcp"]
    names = [run.data.tags["mlflow.runName"] for run in client.search_runs([experiment.experiment_id])]
    assert names.count("sweep") >= 1
    assert {f"trial {trial.number}" for trial in found.trials} - {f"trial {each.number}" for each in before} <= set(
        names
    )


def test_a_series_is_no_trial(tmp_path):
    with pytest.raises(ConfigError, match="seeds is several trainings"):
        run_sweep({"seeds": 3}, read_space(["lora_rank=2,4"])[2], trials=2, jobs=1, folder=tmp_path / "swept")
    assert not (tmp_path / "swept").exists()


def test_another_sweep_does_not_go_on_in_its_folder(project):
    file, given, space = read_space([str(project / "my.yaml"), "lora_rank=2,4"])
    settings = yaml.safe_load(Path(file).read_text()) | given
    with pytest.raises(ConfigError, match=r"has a sweep of learning_rate = 1e-09,0.003, lora_rank = 2..4"):
        run_sweep(settings, space, trials=2, jobs=1, folder=project / "swept")


def test_trials_that_all_fail_end_it_with_the_reason(project, tmp_path):
    settings = yaml.safe_load((project / "my.yaml").read_text()) | {"lora_target": "no_such_layer", "report_to": "none"}
    with pytest.raises(SweepError, match=r"3 trials failed(?s:.*)no_such_layer"):
        run_sweep(settings, read_space(["lora_rank=2,4"])[2], trials=9, jobs=1, folder=tmp_path / "swept")
    assert [trial["state"] for trial in json.loads((tmp_path / "swept" / SWEEP_FILE).read_text())["trials"]] == [
        "failed"
    ] * 3
    with pytest.raises(ConfigError, match="there is none: set val_size"):
        run_sweep(
            settings | {"val_size": 0, "resplit": True},
            read_space(["lora_rank=2,4"])[2],
            trials=9,
            jobs=1,
            folder=tmp_path / "b",
        )
