"""What a trial does between its steps."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from ivcp.sweep.trial import TellValues
from ivcp.sweep.trial_files import STOP_FILE, read_values


def test_a_trial_ends_with_its_sweep_and_when_it_is_given_up(tmp_path: Path):
    control, state = SimpleNamespace(should_training_stop=False), SimpleNamespace(global_step=3)
    trial = TellValues(tmp_path, "loss", sweep=os.getppid())
    trial.on_step_end(None, state, control)
    trial.on_evaluate(None, state, control, {"eval_loss": 0.5})
    assert not control.should_training_stop
    (tmp_path / STOP_FILE).touch()
    trial.on_evaluate(None, state, control, {"eval_loss": 0.25})
    assert control.should_training_stop
    assert read_values(tmp_path) == [(3, 0.5), (3, 0.25)]
    with pytest.raises(SystemExit, match="the sweep has ended"):
        TellValues(tmp_path, "loss", sweep=os.getpid()).on_step_end(None, state, control)
