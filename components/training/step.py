"""The `training` step: from prepared clips to an adapter directory."""

from __future__ import annotations

from pathlib import Path

from components.artifacts import PreparedIndex
from components.config_files import read_saved_config
from components.step_records import recorded_step
from components.training.train import train_classifier


def run_step(*, run_config: str, prepared: str, adapter: str) -> None:
    """Trains on the clips of the index `prepared` and writes the adapter directory `adapter`."""
    with recorded_step("training") as outcome:
        config = read_saved_config(Path(run_config))
        result = train_classifier(config, index=PreparedIndex.read(Path(prepared)), output_dir=Path(adapter))
        outcome.result = result.summary
        outcome.directory = adapter
