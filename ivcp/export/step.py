"""The `export` step: from an adapter directory to a registered model directory."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ivcp.export.deployed_next import why_not_deployed
from ivcp.export.export import export_model
from ivcp.export.predictor_needs import step_memory
from ivcp.records import METRICS_FILE, PreparedIndex
from ivcp.records.language_evaluation import read_metrics
from ivcp.settings import read_saved_config
from ivcp.tracking import note_end
from ivcp.tracking.steps import recorded_step


class Exported(NamedTuple):
    """What the pipeline needs of an export; names and order are those of the component's outputs."""

    serving_memory: str
    """Memory of the serving step, as Kubernetes writes it."""
    model_uri: str
    """Where other steps read the model: its copy below `models_uri`, or its folder."""


def run_step(
    *, run_config: str, prepared: str, adapter: str, results: str, model: str, deploy: bool = False
) -> Exported:
    """Merges `adapter` into the model directory `model` and registers it with the metrics in `results`.

    With `deploy`, the serving step makes it the champion, once it serves.
    """
    with recorded_step("export") as outcome:
        config = read_saved_config(Path(run_config))
        deploy = deploy and why_not_deployed(config) is None
        result = export_model(
            config,
            adapter_dir=Path(adapter),
            index=PreparedIndex.read(Path(prepared)),
            metrics=read_metrics(Path(results) / METRICS_FILE),
            export_dir=Path(model),
            results_dir=Path(results),
            is_deployed_next=deploy,
        )
        outcome.result = result.summary
        if not deploy:
            note_end(config, result.summary)
        outcome.directory = model
    memory = step_memory(Path(model) / (config.deployed_graph or ""), config.serving)
    return Exported(serving_memory=memory, model_uri=result.source)
