from pathlib import Path

import pytest

from ivcp import tracking
from ivcp.settings import RunConfig, from_flat
from tests.unit.tracking.conftest import mlflow_run


def test_a_pipelines_run_is_continued_and_not_ended(store: Path, monkeypatch: pytest.MonkeyPatch):
    config = RunConfig()
    run_id = tracking.start_pipeline_run(config, default_store=store, run_name="nightly", tags={"data": "sample"})
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    with tracking.tracked_run(config, step="training", default_store=store) as first:
        first.log_metrics({"loss": 1.0})
    changed = from_flat({"output_dir": "elsewhere"})
    with tracking.tracked_run(changed, step="evaluation", default_store=store) as second:
        second.log_metrics({"top1_accuracy": 0.9})
    assert first.run_id == second.run_id == run_id
    found = mlflow_run(store, run_id)
    assert found.info.status == "RUNNING"
    assert found.info.run_name == "nightly"
    assert found.data.params["output_dir"] == "runs/output"
    assert found.data.params["evaluation.output_dir"] == "elsewhere"
    assert found.data.tags["step.evaluation"] == "FINISHED"
    tracking.finish_pipeline_run(run_id, "FAILED", config=config, default_store=store)
    assert mlflow_run(store, run_id).info.status == "FAILED"
