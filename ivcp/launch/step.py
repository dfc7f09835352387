"""The `training` step: from prepared clips to an adapter directory."""

from __future__ import annotations

from pathlib import Path

from ivcp.launch.inline import train_inline
from ivcp.launch.trainjob.launcher import train_as_job
from ivcp.records import PreparedIndex
from ivcp.settings import read_saved_config
from ivcp.tracking.steps import recorded_step


def run_step(*, run_config: str, prepared: str, adapter: str, run_id: str) -> None:
    """Trains on the clips of the index `prepared` and writes the adapter directory `adapter`.

    `run_id` is the pipeline run's: with it a step that is retried finds its TrainJob and its checkpoints again.
    """
    with recorded_step("training") as outcome:
        config = read_saved_config(Path(run_config))
        index = PreparedIndex.read(Path(prepared))
        train = train_as_job if config.launch.train_launcher == "trainjob" else train_inline
        result = train(config, index=index, output_dir=Path(adapter), run_id=run_id)
        outcome.result = result.summary
        outcome.directory = adapter
