"""The `export` step: from an adapter directory to a registered model directory."""

from __future__ import annotations

from pathlib import Path

from components.artifacts import METRICS_FILE, PreparedIndex
from components.config_files import read_saved_config
from components.evaluation_metrics import EvaluationMetrics
from components.export.export import export_model
from components.step_records import recorded_step


def run_step(*, run_config: str, prepared: str, adapter: str, results: str, model: str) -> None:
    """Merges `adapter` into the model directory `model` and registers it with the metrics in `results`."""
    with recorded_step("export") as outcome:
        result = export_model(
            read_saved_config(Path(run_config)),
            adapter_dir=Path(adapter),
            index=PreparedIndex.read(Path(prepared)),
            metrics=EvaluationMetrics.read(Path(results) / METRICS_FILE),
            export_dir=Path(model),
        )
        outcome.result = result.summary
        outcome.directory = model
