"""The `serving` step: deploys a model directory and checks its answer."""

from __future__ import annotations

from pathlib import Path

from components.config_files import read_saved_config
from components.serving.deploy_local import choose_smoke_clip, deploy_local
from components.step_records import recorded_step


def run_step(*, run_config: str, model: str, results: str, deployment: str) -> None:
    """Deploys the model directory `model`, asks it for a clip of the predictions in `results`, writes `deployment`."""
    with recorded_step("serving") as outcome:
        result = deploy_local(
            read_saved_config(Path(run_config)),
            model_dir=Path(model),
            smoke_clip=choose_smoke_clip(Path(results)),
            output_dir=Path(deployment),
        )
        outcome.result = result.summary
        outcome.directory = deployment
