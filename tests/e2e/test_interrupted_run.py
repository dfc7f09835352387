"""One run that is killed in every step, each time in another way, and that the same command brings to its end."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from ivcp.demo.sample_data import generate_sample_data
from ivcp.demo.tiny_model import build_tiny_model
from ivcp.pipeline_runs.interruption import _has
from ivcp.tracking.steps import RECORDS_DIR_VARIABLE

pytestmark = pytest.mark.slow
IVCP = [sys.executable, "-m", "ivcp.cli.main"]
SETTINGS = {
    "model_name_or_path": "models/tiny",
    "dataset": "sample_train",
    "test_dataset": "sample_test",
    "val_size": 0.2,
    "num_train_epochs": 50,
    "per_device_train_batch_size": 4,
    "per_device_eval_batch_size": 20,
    "learning_rate": 1e-3,
    "video_num_frames": 4,
    "video_min_pixels": 2304,
    "video_max_pixels": 2304,
    "preprocessing_parts": 2,
    "disable_gradient_checkpointing": True,
    "save_steps": 20,
    "baselines": [],
    "save_total_limit": 2,
    "logging_steps": 10,
}


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    generate_sample_data(folder / "data", num_train_clips=40, num_test_clips=20)
    build_tiny_model(folder / "models" / "tiny", warm_up=False)
    (folder / "run.yaml").write_text(yaml.safe_dump(SETTINGS))
    return folder


def start(project: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*IVCP, "run", "run.yaml", *words],
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
    )


def log_of(project: Path) -> str:
    file = project / "runs" / "latest" / "pipeline.log"
    return file.read_text() if file.exists() else ""


def wait_for(project: Path, pattern: str, running: subprocess.Popen[str], *, after: int) -> None:
    for _ in range(6000):
        if re.search(pattern, log_of(project)[after:]):
            return
        assert running.poll() is None, log_of(project)[after:] + (running.stdout.read() if running.stdout else "")
        time.sleep(0.1)
    raise AssertionError(f"{pattern} never came: {log_of(project)[after:]}")


def wait_until(ready) -> None:
    for _ in range(1200):
        if ready():
            return
        time.sleep(0.1)
    raise AssertionError("it never came")


def predictors(project: Path) -> int:
    words = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    return sum("ivcp.serving.server" in word and str(project) in word for word in words)


def run_status(project: Path) -> str:
    from mlflow import MlflowClient

    (run,) = MlflowClient(tracking_uri=f"sqlite:///{project}/runs/mlflow.db").search_runs(["1"])
    status: str = run.info.status
    return status


def steps_left(project: Path) -> int:
    value = str((project / "runs" / "latest").resolve() / "steps")
    return sum(_has(process, RECORDS_DIR_VARIABLE, value) for process in psutil.process_iter())


def test_a_run_that_is_killed_in_every_step_comes_to_its_end(project):
    kills = [
        ("Executing task .*data-validation", signal.SIGINT),
        ("Executing task .*preprocessing-part", signal.SIGKILL),
        (r"step 40 of", signal.SIGTERM),
        (r"was begun before(?s:.*)step \d+ of", signal.SIGKILL),
        ("Executing task .*evaluation", signal.SIGTERM),
        ("Executing task .*export", signal.SIGKILL),
        ("Executing task .*serving", signal.SIGKILL),
        ("Executing task .*serving", signal.SIGINT),
    ]
    was_killed = False
    for pattern, number in kills:
        begin = len(log_of(project))
        running = start(project)
        wait_for(project, pattern, running, after=begin)
        if "serving" in pattern:  # until the predictor, in a session of its own, has started
            wait_until(lambda: predictors(project) > 0)
        running.send_signal(number)
        shown, _ = running.communicate(timeout=300)
        assert ("was killed" in shown) == was_killed, shown
        was_killed = number == signal.SIGKILL
        if was_killed:
            assert running.returncode == -signal.SIGKILL
            continue
        assert running.returncode == 75, shown
        assert (steps_left(project), predictors(project)) == (0, 0)
        assert json.loads((project / "runs/latest/summary.json").read_text())["status"] == "interrupted"
        assert run_status(project) == "KILLED"

    running = start(project)
    shown, _ = running.communicate(timeout=600)
    assert running.returncode == 0, shown
    summary = json.loads((project / "runs/latest/summary.json").read_text())
    log = log_of(project)
    assert summary["status"] == "succeeded"
    assert list(summary["steps"]) == [
        "data_validation",
        "preprocessing",
        "training",
        "evaluation",
        "export",
        "serving",
    ]
    assert len(list((project / "runs").glob("*/run.json"))) == 2  # with latest
    assert run_status(project) == "FINISHED"
    begun = {
        step: len(re.findall(rf"Executing task .*'{step}'", log))
        for step in ("data-validation", "training", "evaluation", "export", "serving")
    }
    assert begun == {"data-validation": 2, "training": 3, "evaluation": 2, "export": 2, "serving": 3}
    assert len(re.findall("this run was begun before and did not end: going on from", log)) == 2


def test_a_finished_run_is_not_gone_on_with_and_a_running_one_is_left_alone(project):
    first = start(project, "num_train_epochs=1", "--runs-dir", "others")
    wait_until(lambda: list((project / "others").glob("2*/pipeline.log")))
    second = start(project, "num_train_epochs=1", "--runs-dir", "others")
    shown, _ = second.communicate(timeout=120)
    assert second.returncode == 2, shown
    assert re.search(rf"process {first.pid} on .* works in .*--fresh", shown), shown
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=120)
    assert first.returncode == 75
