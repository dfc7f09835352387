import logging

import pytest

from ivcp.lifecycle.end import describe_end, run_step
from ivcp.settings import from_flat
from ivcp.tracking import find_pipeline_run, open_pipeline_run, tracked_run


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch):
    handlers = logging.getLogger().handlers[:]
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "RANK"):
        monkeypatch.delenv(name, raising=False)
    yield
    logging.getLogger().handlers[:] = handlers


def end(mlflow_uri, tmp_path, run, state, error=""):
    report = tmp_path / "report.md"
    # A wrong setting, which may be why the run failed, is not this step's business.
    overrides = {"mlflow_tracking_uri": mlflow_uri, "lora_rnk": 3, "lora_rank": "many"}
    run_step(overrides, pipeline_run=run, state=state, error=error, report=str(report))
    return report.read_text()


def test_a_failed_step_is_named_with_its_error(mlflow_uri, tmp_path):
    config = from_flat({"mlflow_tracking_uri": mlflow_uri})
    run_id = open_pipeline_run(config, pipeline_run="first", run_name="first")
    ours = from_flat({"mlflow_tracking_uri": mlflow_uri, "mlflow_run_id": run_id})
    with pytest.raises(MemoryError), tracked_run(ours, step="training"):
        raise MemoryError("no clip fits")

    assert end(mlflow_uri, tmp_path, "first", "FAILED") == "training failed: MemoryError: no clip fits\n"
    assert find_pipeline_run(config, "first").info.status == "FAILED"


def test_a_run_that_succeeds_is_closed(mlflow_uri, tmp_path):
    config = from_flat({"mlflow_tracking_uri": mlflow_uri})
    open_pipeline_run(config, pipeline_run="second", run_name="second")
    assert find_pipeline_run(config, "second").info.status == "RUNNING"

    assert end(mlflow_uri, tmp_path, "second", "SUCCEEDED") == "all steps succeeded\n"
    assert find_pipeline_run(config, "second").info.status == "FINISHED"


def test_a_run_that_never_began_is_reported(mlflow_uri, tmp_path):
    assert "before training" in end(mlflow_uri, tmp_path, "none", "FAILED", "exit code 1")


def test_a_run_of_another_owner_is_left_alone(mlflow_uri, tmp_path, monkeypatch):
    config = from_flat({"mlflow_tracking_uri": mlflow_uri})
    open_pipeline_run(config, pipeline_run="third", run_name="third")
    monkeypatch.setenv("MLFLOW_RUN_ID", "owned")
    end(mlflow_uri, tmp_path, "third", "SUCCEEDED")

    assert find_pipeline_run(config, "third").info.status == "RUNNING"


@pytest.mark.parametrize(
    ("status", "tags", "message"),
    [
        ("FINISHED", {"ivcp.unchanged_since": "m v7"}, "nothing changed since m v7: nothing was trained"),
        ("KILLED", {}, "the run was cancelled"),
        ("FAILED", {"step.training": "FINISHED"}, "a step failed after training: why; see its log"),
    ],
)
def test_the_end_in_words(status, tags, message):
    assert describe_end(status, tags, "why") == message


def test_a_failure_in_a_run_that_nothing_is_known_of_is_placed_nowhere():
    assert describe_end("FAILED", None, "exit code 1") == "a step failed: exit code 1; see its log"
