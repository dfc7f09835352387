"""The training step where it is repeated in the same folder."""

import logging
from pathlib import Path

import pytest

from ivcp.launch.step import run_step
from ivcp.settings import save_config


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch):
    handlers = logging.getLogger().handlers[:]
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    yield
    logging.getLogger().handlers[:] = handlers


def test_a_step_that_was_cut_off_behind_its_training_finds_the_adapter(make_config, sharded_index, tmp_path, caplog):
    save_config(make_config(num_train_epochs=1), tmp_path / "run_config.json")
    sharded_index.write(tmp_path / "index.json")
    adapter = tmp_path / "output"

    def run() -> bytes:
        run_step(
            run_config=str(tmp_path / "run_config.json"),
            prepared=str(tmp_path / "index.json"),
            adapter=str(adapter),
            run_id="run1",
        )
        return weights(adapter)

    first = run()
    written = (adapter / "training_result.json").stat().st_mtime_ns
    assert run() == first
    assert (adapter / "training_result.json").stat().st_mtime_ns == written


def weights(adapter: Path) -> bytes:
    return (adapter / "action_decoder.safetensors").read_bytes()
