import logging

import pytest

from ivcp.lifecycle.end import describe_end, describe_stages, run_step
from ivcp.settings import from_flat
from ivcp.tracking import find_pipeline_run, note_end, open_pipeline_run, tracked_run
from tests.ports import free_port


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch):
    handlers = logging.getLogger().handlers[:]
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "RANK"):
        monkeypatch.delenv(name, raising=False)
    yield
    logging.getLogger().handlers[:] = handlers


def end(mlflow_uri, tmp_path, run, state, error="", settings="", stages=1):
    report = tmp_path / "report.md"
    # A wrong setting, which may be why the run failed, is not this step's business.
    overrides = {"lora_rnk": 3, "lora_rank": "many"} | ({} if settings else {"mlflow_tracking_uri": mlflow_uri})
    run_step(settings, overrides, pipeline_run=run, stages=stages, state=state, error=error, report=str(report))
    return report.read_text()


def test_mlflow_is_found_by_the_pasted_settings(mlflow_uri, tmp_path):
    config = from_flat({"mlflow_tracking_uri": mlflow_uri})
    open_pipeline_run(config, pipeline_run="pasted", run_name="pasted")
    text = f"### tracking\nmlflow_tracking_uri: {mlflow_uri}\nlora_rnk: 3\n"

    assert end(mlflow_uri, tmp_path, "pasted", "CANCELED", settings=text) == "the run was cancelled\n"
    assert find_pipeline_run(config, "pasted").info.status == "KILLED"


@pytest.mark.parametrize(
    "text",
    ["- no\n- settings", "s3://bucket-that-is-not/there.yaml", "run_name: {{ x }}", "mlflow_tracking_uri: [a, b]"],
)
def test_settings_that_cannot_be_read_are_no_reason_to_fail(mlflow_uri, tmp_path, text, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    assert end(mlflow_uri, tmp_path, "none", "FAILED", "exit code 1", settings=text).startswith("a step failed")


def test_a_failed_step_is_named_with_its_error(mlflow_uri, tmp_path):
    config = from_flat({"mlflow_tracking_uri": mlflow_uri})
    run_id = open_pipeline_run(config, pipeline_run="first", run_name="first")
    ours = from_flat({"mlflow_tracking_uri": mlflow_uri, "mlflow_run_id": run_id})
    with pytest.raises(MemoryError), tracked_run(ours, step="training"):
        raise MemoryError("no clip fits")

    assert end(mlflow_uri, tmp_path, "first", "FAILED") == "training failed: MemoryError: no clip fits\n"
    assert find_pipeline_run(config, "first").info.status == "FAILED"


@pytest.mark.parametrize("state", ["SUCCEEDED", "COMPLETE", "RUNNING", "UNKNOWN_AS_YET"])
def test_a_run_whose_steps_came_to_their_end_succeeded_whatever_kfp_calls_it(mlflow_uri, tmp_path, state):
    """A cluster of KFP 2.17 says COMPLETE, and RUNNING of a run with `skip_unchanged`."""
    config = from_flat({"mlflow_tracking_uri": mlflow_uri})
    run_id = open_pipeline_run(config, pipeline_run=state, run_name=state)
    note_end(
        from_flat({"mlflow_tracking_uri": mlflow_uri, "mlflow_run_id": run_id}), "m v3 serves at http://m.ivcp.svc"
    )
    assert find_pipeline_run(config, state).info.status == "RUNNING"

    assert end(mlflow_uri, tmp_path, state, state) == "m v3 serves at http://m.ivcp.svc\n"
    assert find_pipeline_run(config, state).info.status == "FINISHED"


@pytest.mark.parametrize(
    ("state", "status", "message"),
    [
        ("COMPLETE", "FINISHED", "all steps succeeded"),
        ("RUNNING", "FAILED", "a step failed before training: in the validation or preparation of the data"),
        ("CANCELED", "KILLED", "the run was cancelled"),
    ],
)
def test_kfps_word_counts_where_no_step_said_that_it_was_the_last(mlflow_uri, tmp_path, state, status, message):
    config = from_flat({"mlflow_tracking_uri": mlflow_uri})
    open_pipeline_run(config, pipeline_run=f"open {state}", run_name="open")

    assert end(mlflow_uri, tmp_path, f"open {state}", state).startswith(message)
    assert find_pipeline_run(config, f"open {state}").info.status == status


def test_a_run_that_never_began_is_reported(mlflow_uri, tmp_path):
    assert "before training" in end(mlflow_uri, tmp_path, "none", "FAILED", "exit code 1")


def test_a_run_of_another_owner_is_left_alone(mlflow_uri, tmp_path, monkeypatch):
    config = from_flat({"mlflow_tracking_uri": mlflow_uri})
    open_pipeline_run(config, pipeline_run="third", run_name="third")
    monkeypatch.setenv("MLFLOW_RUN_ID", "owned")
    end(mlflow_uri, tmp_path, "third", "SUCCEEDED")

    assert find_pipeline_run(config, "third").info.status == "RUNNING"


@pytest.mark.parametrize(
    ("state", "tags", "message"),
    [
        ("FAILED", {"step.training": "FINISHED"}, "a step failed after training: why; see its log"),
        ("FAILED", None, "a step failed: why; see its log"),
        ("COMPLETE", None, "all steps succeeded"),
        ("CANCELED", {"step.training": "FAILED"}, "the run was cancelled"),
        ("COMPLETE", {"step.serving": "FAILED", "step.serving.error": "no pod"}, "serving failed: no pod"),
        (
            "RUNNING",
            {},
            "how the run ended is not known: KFP calls it RUNNING, and its steps left nothing in MLflow: why",
        ),
    ],
)
def test_the_end_in_words(state, tags, message):
    assert describe_end(state, tags, "why") == message


DONE = {"ivcp.ended": "m v1", "step.export": "FINISHED"}


@pytest.mark.parametrize(
    ("state", "stages", "status", "message"),
    [
        ("SUCCEEDED", [DONE, DONE], "FINISHED", "stage 2 of 2: m v1"),
        ("RUNNING", [DONE, DONE], "FINISHED", "stage 2 of 2: m v1"),
        ("RUNNING", [DONE, {}], "FAILED", "stage 2 of 2 did not begin: why; see the log of its first step"),
        ("CANCELED", [DONE, {}], "KILLED", "stage 2 of 2 did not begin: why; see the log of its first step"),
        ("RUNNING", [{"ivcp.ended": "refused: 0.1"}, {}], "FINISHED", "stage 1 of 2: refused: 0.1"),
        (
            "FAILED",
            [DONE, {"step.training": "FAILED", "step.training.error": "no"}],
            "FAILED",
            "stage 2 of 2: training failed: no",
        ),
        (
            "FAILED",
            [{}, {}],
            "FAILED",
            "a step failed before training: in the validation or preparation of the data: why; see its log",
        ),
        ("FAILED", [None, None], "FAILED", "a step failed: why; see its log"),
    ],
)
def test_the_end_of_a_curriculum(state, stages, status, message):
    assert describe_stages(state, stages, "why") == (status, message)


def test_each_stage_of_a_curriculum_ends_and_what_they_lie_below(mlflow_uri, tmp_path):
    config = from_flat({"mlflow_tracking_uri": mlflow_uri})
    for run in ("whole", "whole-1", "whole-2"):
        open_pipeline_run(config, pipeline_run=run, run_name=run)
    first = find_pipeline_run(config, "whole-1").info.run_id
    note_end(from_flat({"mlflow_tracking_uri": mlflow_uri, "mlflow_run_id": first}), "m v1")
    told = end(mlflow_uri, tmp_path, "whole", "FAILED", "exit code 1", stages=3)
    assert told.startswith("stage 2 of 3: a step failed")
    statuses = [find_pipeline_run(config, run).info.status for run in ("whole", "whole-1", "whole-2")]
    assert statuses == ["FAILED", "FINISHED", "FAILED"]
    assert find_pipeline_run(config, "whole-3") is None
