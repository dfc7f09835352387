"""What is left of a training that was evicted, killed, or ran out of disk, and how the same command goes on."""

import json
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ivcp.data.prepared.reader import PreparedSamples
from ivcp.models.backbone_files import ModelFilesError
from ivcp.records import PreparedIndex
from ivcp.settings import config_from_settings
from ivcp.stages.directory import load_directory
from ivcp.training.build import build_trainer
from ivcp.training.checkpoints.folder import UNFINISHED_FILE, CheckpointError, whole_checkpoints
from ivcp.training.checkpoints.output_dir import check_output_dir
from ivcp.training.loop.interruption import INTERRUPTED
from ivcp.training.result import run_trainer
from ivcp.training.run_record import RUN_RECORD_FILE
from ivcp.training.train import train_model
from tests.integration.torchrun import processes_environment, torchrun_command
from tests.integration.training_data import training_settings

from transformers import TrainerCallback  # isort: skip  (behind what makes torchvision importable)

ALONE = [sys.executable]


@pytest.fixture(scope="module")
def uninterrupted(data) -> dict[int, float]:
    config = config_from_settings(training_settings(data, data / "uninterrupted", **RUN))
    train_model(config, index=PreparedIndex.read(data / "index.json"), output_dir=data / "uninterrupted")
    return losses(data / "uninterrupted")


RUN = {"max_steps": 8, "save_steps": 4, "eval_strategy": "no", "per_device_train_batch_size": 4}


def command(data: Path, output_dir: Path, *fault: str, launcher: list[str], **settings) -> list[str]:
    file = output_dir.with_suffix(".json")
    file.write_text(json.dumps(training_settings(data, output_dir, **RUN | settings)))
    return [*launcher, "-m", "tests.integration.training.train_prepared", str(data / "index.json"), str(file), *fault]


def run(words: list[str]) -> subprocess.CompletedProcess:
    return subprocess.run(words, env=processes_environment(), capture_output=True, text=True, timeout=200)


def losses(output_dir: Path) -> dict[int, float]:
    rows = json.loads((output_dir / "trainer_state.json").read_text())["log_history"]
    return {row["step"]: row["loss"] for row in rows if "loss" in row}


def terminate_in_step(words: list[str], step: int) -> tuple[int, str]:
    """Starts, sends SIGTERM when the step before `step` is logged; returns the exit code and the log."""
    with subprocess.Popen(
        words, env=processes_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if f"step {step - 1} of 8" in line:
                process.send_signal(signal.SIGTERM)
        return process.wait(timeout=100), "".join(lines)


def test_eviction_leaves_a_checkpoint_and_the_same_command_goes_on(data, uninterrupted):
    output_dir = data / "evicted"
    words = command(data, output_dir, launcher=ALONE)
    code, log = terminate_in_step([*words, "slow", "2"], 4 - 1)

    assert code == INTERRUPTED, log
    assert "run the same command again to go on from" in log
    assert (output_dir / UNFINISHED_FILE).is_file()
    assert not (output_dir / "adapter_config.json").exists()
    assert [path.name for path in whole_checkpoints(output_dir)] == ["checkpoint-3"]
    load_directory(output_dir / "checkpoint-3")

    done = run(words)
    assert done.returncode == 0, done.stderr
    assert "going on from" in done.stderr
    assert losses(output_dir) == pytest.approx(uninterrupted, abs=1e-6)
    assert not (output_dir / UNFINISHED_FILE).exists()
    with pytest.raises(FileExistsError, match="set overwrite_output_dir: true to start again"):
        check_output_dir(config_from_settings(training_settings(data, output_dir, **RUN)), output_dir)


def test_eviction_of_several_processes(data, uninterrupted):
    """torchrun hands SIGTERM on; the processes agree on the step."""
    output_dir = data / "evicted-two"
    half = {"per_device_train_batch_size": 2, "deepspeed": "z2"}
    words = command(data, output_dir, launcher=torchrun_command(), **half)
    code, log = terminate_in_step([*words, "slow", "2"], 3)

    assert code != 0
    assert "run the same command again to go on from" in log, log
    assert [path.name for path in whole_checkpoints(output_dir)] == ["checkpoint-3"]
    done = run(words)
    assert done.returncode == 0, done.stderr
    assert losses(output_dir) == pytest.approx(uninterrupted, abs=1e-4)


def test_death_in_the_middle_of_a_checkpoint(data, uninterrupted):
    """The half-written one is no checkpoint to anybody; the run goes on from the one before."""
    output_dir = data / "killed"
    words = command(data, output_dir, launcher=ALONE)
    died = run([*words, "kill", "8"])

    assert died.returncode == -signal.SIGKILL
    assert (output_dir / "checkpoint-8" / "adapter_config.json").exists()
    assert [path.name for path in whole_checkpoints(output_dir)] == ["checkpoint-4"]
    with pytest.raises(ModelFilesError, match=r"checkpoint\.json missing"):
        load_directory(output_dir / "checkpoint-8")

    done = run(words)
    assert done.returncode == 0, done.stderr
    assert "removing the half-written checkpoint" in done.stderr
    assert losses(output_dir) == pytest.approx(uninterrupted, abs=1e-6)
    assert [path.name for path in whole_checkpoints(output_dir)] == ["checkpoint-4", "checkpoint-8"]


@pytest.mark.parametrize("room", [3000, 40_000, 100_000], ids=["settings", "adapter", "optimizer"])
def test_a_full_disk_costs_only_the_checkpoint_that_was_being_written(data, room):
    """No file may grow beyond `room` bytes from step 8 on: the write fails as on a full disk."""
    output_dir = data / f"full-{room}"
    config = config_from_settings(training_settings(data, output_dir, **RUN))
    index = PreparedIndex.read(data / "index.json")
    clips = {split: PreparedSamples(index, split) for split in ("train", "val")}
    trainer = build_trainer(config, index=index, samples=clips, output_dir=output_dir)
    trainer.callback_handler.callbacks.insert(1, NoRoom(room, step=8))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(CheckpointError, match=r"cannot write .*the last good one is: checkpoint-4"):
            run_trainer(trainer)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert not (output_dir / "checkpoint-8").exists()
    load_directory(output_dir / "checkpoint-4")


class NoRoom(TrainerCallback):
    def __init__(self, room: int, *, step: int) -> None:
        self.room, self.step = room, step

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.step:
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.room, hard))


def test_a_process_that_fails_ends_the_others_and_is_heard_first(data):
    output_dir = data / "failed"
    began = time.monotonic()
    done = run(
        command(
            data, output_dir, "fail", "2", launcher=torchrun_command(), per_device_train_batch_size=2, ddp_timeout=600
        )
    )

    assert done.returncode != 0
    assert time.monotonic() - began < 150  # not the ten minutes that a process waits for the others
    assert "ValueError: the second process cannot go on" in done.stderr
    first_error = next(line for line in done.stderr.splitlines() if "Error" in line)
    assert "the second process cannot go on" in first_error
    root_cause = done.stderr.partition("Root Cause")[2]
    assert "rank      : 1" in root_cause
    assert "the second process cannot go on" in root_cause
    assert {path.name for path in output_dir.iterdir()} == {UNFINISHED_FILE, RUN_RECORD_FILE}


def test_a_loss_that_is_not_finite_in_one_process_ends_all_with_its_clips(data):
    """The gradient is finite in both: only what the processes tell each other stops the first one."""
    output_dir = data / "nan"
    done = run(
        command(
            data, output_dir, "nan", "6", launcher=torchrun_command(), per_device_train_batch_size=2, ddp_timeout=600
        )
    )

    assert done.returncode != 0
    messages = re.findall(r"NonFiniteError: step 7 has a loss of nan.* Its clips: (.*?)\. Lower", done.stderr)
    assert len(messages) >= 2  # of both processes
    assert len(set(messages)) == 1
    assert len(set(re.findall(r"clips:\d+ ", messages[0]))) == 2  # the batch of the second process alone
    assert f"the last good checkpoint is {output_dir / 'checkpoint-4'}" in done.stderr
    assert [path.name for path in whole_checkpoints(output_dir)] == ["checkpoint-4"]
    assert not (output_dir / "adapter_model.safetensors").exists()
