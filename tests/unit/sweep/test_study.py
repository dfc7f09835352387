"""Sweeps of processes that only say how good a trial was."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ivcp.settings import ConfigError
from ivcp.sweep import study
from ivcp.sweep.result import SweepResult
from ivcp.sweep.space import read_space
from ivcp.sweep.study import SweepError, run_sweep

SAYS = """
import json, pathlib, sys
folder = pathlib.Path(sys.argv[1])
settings = json.loads((folder / "run_config.json").read_text())
value = float("nan") if settings["weight_decay"] else settings["learning_rate"]
(folder / "values.jsonl").write_text(json.dumps({"step": 1, "value": value}) + "\\n")
"""


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr(study, "_POLL_SECONDS", 0.02)
    monkeypatch.setattr(study._Sweep, "_prepared", lambda *_: tmp_path)
    begin = subprocess.Popen
    monkeypatch.setattr(
        study.subprocess, "Popen", lambda words, **others: begin([sys.executable, "-c", SAYS, words[3]], **others)
    )

    def run(*words: str, trials: int, jobs: int = 1, **settings: Any) -> SweepResult:
        given = {"metric_for_best_model": "loss", "report_to": "none", **settings}
        return run_sweep(given, read_space(words)[2], trials=trials, jobs=jobs, folder=tmp_path / "swept")

    return run


def test_a_sweep_that_goes_on_proposes_nothing_twice(sweep):
    sweep("learning_rate=1e-5..1e-3:log", trials=3)
    found = sweep("learning_rate=1e-5..1e-3:log", trials=6, jobs=9)
    assert len({trial.settings["learning_rate"] for trial in found.trials}) == 6
    values = [trial.value for trial in found.trials if trial.state == "complete"]
    assert values == sorted(values), "the best first"


def test_settings_that_cannot_stand_together_are_trials_that_failed(sweep):
    words = "action_decoder_type=mlp,linear", "action_decoder_hidden_size=null,64"
    found = sweep(*words, trials=12)
    failed = [tuple(trial.settings.values()) for trial in found.trials if trial.state == "failed"]
    assert set(failed) == {("linear", 64)}
    assert found.best is not None
    assert sweep(*words, trials=12) == found


def test_values_that_are_no_numbers_are_told(sweep):
    with pytest.raises(SweepError, match=r"3 trials failed.* it found no finite loss: see learning_rate"):
        sweep("learning_rate=1e-5..1e-3", trials=9, weight_decay=0.1)


def test_a_folder_in_which_no_trial_ended_takes_another_sweep(sweep, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(study._Sweep, "_prepared", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            sweep("lora_rank=2,4", trials=1)
    assert len(sweep("lora_rank=4,8", trials=1).trials) == 1
    with pytest.raises(ConfigError, match="has a sweep of lora_rank = 4,8"):
        sweep("lora_rank=2,4", trials=1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train_processes_per_node": 2}, r"a trial trains in one process \(2 is asked for\)"),
        ({"fsdp": "full_shard"}, r"a trial trains in one process \(full_shard is asked for\)"),
        ({"eval_strategy": "no"}, "eval_strategy = no: a sweep compares trials by validation"),
        ({"folds": 3}, "folds is several trainings"),
    ],
)
def test_a_trial_is_one_training_that_is_validated(sweep, settings, message):
    with pytest.raises(ConfigError, match=message):
        sweep("lora_rank=2,4", trials=1, **settings)


def test_torchrun_starts_no_sweep(sweep, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="start `ivcp sweep` without torchrun"):
        sweep("lora_rank=2,4", trials=1)
