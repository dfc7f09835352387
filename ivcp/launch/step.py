"""The `training` step: from prepared clips to an adapter directory."""

from __future__ import annotations

from pathlib import Path

from ivcp.launch.inline import train_inline
from ivcp.launch.trainjob.launcher import train_as_job
from ivcp.records import TRAINING_RESULT_FILE, UNFINISHED_FILE, PreparedIndex
from ivcp.settings import read_saved_config
from ivcp.tracking.steps import recorded_step
from ivcp.training.result import TrainingResult


def run_step(*, run_config: str, prepared: str, adapter: str, run_id: str) -> None:
    """Trains on the clips of the index `prepared` and writes the adapter directory `adapter`.

    `run_id` is the pipeline run's: with it a step that is retried finds its TrainJob and its checkpoints again. One
    that was cut off after the end of its training finds the adapter.
    """
    with recorded_step("training") as outcome:
        config = read_saved_config(Path(run_config))
        index = PreparedIndex.read(Path(prepared))
        train = train_as_job if config.launch.train_launcher == "trainjob" else train_inline
        result = _finished(Path(adapter)) or train(config, index=index, output_dir=Path(adapter), run_id=run_id)
        outcome.result = result.summary
        outcome.directory = adapter


def _finished(adapter: Path) -> TrainingResult | None:
    if (adapter / UNFINISHED_FILE).exists() or not (adapter / TRAINING_RESULT_FILE).is_file():
        return None
    return TrainingResult.read(adapter / TRAINING_RESULT_FILE)
