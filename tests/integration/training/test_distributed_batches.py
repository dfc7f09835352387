"""What processes share besides weights: planned batches, and the states and decoders of a head sweep."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ivcp.stages.action_cls.head_sweep import SWEEP_FILE, SweepResult
from ivcp.stages.directory import load_directory
from tests.integration.torchrun import processes_environment, torchrun_command
from tests.integration.training_data import training_settings


def train(data: Path, name: str, *, launcher: list[str], **settings) -> Path:
    file, output_dir = data / f"{name}.json", data / name
    file.write_text(json.dumps(training_settings(data, output_dir, **settings)))
    words = [*launcher, "-m", "tests.integration.training.train_prepared", str(data / "index.json"), str(file)]
    done = subprocess.run(words, env=processes_environment(), capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return output_dir


def train_alone_and_together(data: Path, name: str, alone: dict, together: dict) -> tuple[Path, Path]:
    return (
        train(data, f"{name}-alone", launcher=[sys.executable], **alone),
        train(data, f"{name}-together", launcher=torchrun_command(2), **together),
    )


def losses(output_dir: Path) -> list[float]:
    rows = json.loads((output_dir / "trainer_state.json").read_text())["log_history"]
    return [row["loss"] for row in rows if "loss" in row]


def test_planned_batches_are_divided_among_processes(data):
    """Two processes take one planned batch each where one takes two after the other."""
    settings = {"tokens_per_batch": 160, "balanced_sampling": True, "augment_flip": 0.5}
    outputs = train_alone_and_together(data, "batches", settings | {"gradient_accumulation_steps": 2}, settings)

    alone, together = (losses(output) for output in outputs)
    assert len(alone) == 4
    assert together == pytest.approx(alone, abs=1e-4)


def test_augmentation_changes_with_the_epoch_in_every_process(data):
    """Nothing is learned, and a step is of all clips: losses differ by the changes of the frames alone."""
    settings = {
        "num_train_epochs": 3,
        "max_steps": -1,
        "eval_strategy": "no",
        "learning_rate": 1e-12,
        "augment_crop": 0.2,
        "augment_color_jitter": 0.5,
        "dataloader_num_workers": 1,
    }
    alone, together = {"per_device_train_batch_size": 16}, {"per_device_train_batch_size": 8}
    outputs = train_alone_and_together(data, "augmented", settings | alone, settings | together)

    expected, got = (losses(output) for output in outputs)
    assert got == pytest.approx(expected, abs=1e-4)
    assert min(abs(got[0] - got[1]), abs(got[1] - got[2]), abs(got[0] - got[2])) > 1e-3


def test_augmentation_goes_on_in_the_middle_of_an_epoch(data):
    settings = {"num_train_epochs": 2, "max_steps": -1, "eval_strategy": "no", "augment_crop": 0.2, "save_steps": 6}
    whole = train(data, "whole", launcher=[sys.executable], **settings)
    resume = {"resume_from_checkpoint": str(whole / "checkpoint-6")}
    resumed = train(data, "resumed", launcher=[sys.executable], **settings | resume)

    assert losses(resumed) == pytest.approx(losses(whole), rel=1e-5)


def test_a_head_sweep_in_two_processes_chooses_the_same_decoder(data):
    settings = {
        "finetuning_type": "freeze",
        "freeze_trainable_layers": 0,
        "head_sweep": True,
        "head_sweep_epochs": 3,
        "head_sweep_seeds": 1,
    }
    # Each with a folder of its own for the states, so that both compute them.
    alone, together = train_alone_and_together(
        data,
        "sweep",
        settings | {"vision_cache_dir": str(data / "states-alone")},
        settings | {"vision_cache_dir": str(data / "states-together")},
    )

    results = [SweepResult.read(folder / SWEEP_FILE) for folder in (alone, together)]
    best = [result.best.model_dump() for result in results]
    assert len(results[0].candidates) == len(results[1].candidates) == 16
    assert best[1] == pytest.approx(best[0], abs=1e-4)
    assert load_directory(together).info.trained_steps == results[1].steps
