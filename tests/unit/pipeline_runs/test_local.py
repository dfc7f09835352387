import pytest

from ivcp.pipeline_runs.local import _status, _summarize, _with_shards, _without_retries
from ivcp.settings import from_flat
from ivcp.tracking.steps import StepRecord
from pipelines.action_cls import action_cls


def retries(pipeline) -> int:
    spec = pipeline.pipeline_spec
    dags = [spec.root.dag, *(component.dag for component in spec.components.values())]
    return sum(task.HasField("retry_policy") for dag in dags for task in dag.tasks.values())


def test_a_failure_on_one_machine_is_not_tried_again():
    assert retries(_without_retries()) == 0
    assert retries(action_cls) == 9  # and the pipeline for clusters stays what it is


@pytest.mark.parametrize(
    ("steps", "status"),
    [
        (["preprocessing"], "unchanged"),
        (["preprocessing", "training", "evaluation"], "refused"),
        (["preprocessing", "training", "evaluation", "export"], "succeeded"),
    ],
)
def test_what_a_run_came_to(steps, status):
    assert _status({step: StepRecord(step=step, status="succeeded", seconds=1.0) for step in steps}) == status


def test_a_first_step_that_fails_says_why(tmp_path):
    (tmp_path / "steps").mkdir()
    record = StepRecord(step="run_start", status="failed", seconds=1.0, error="ConfigError: lora_target = [qv]_proj")
    record.write(tmp_path / "steps" / "run_start.json")
    summary = _summarize(tmp_path, seconds=1.0, error="Inner task failed", uri="sqlite:///a", run_id="1")

    assert (summary.status, summary.steps) == ("failed", {})
    assert summary.error == "run_start failed: ConfigError: lora_target = [qv]_proj"


def test_clips_go_where_the_settings_say(tmp_path):
    assert _with_shards(from_flat({}), tmp_path).cluster.shards_uri == str(tmp_path / "clips")
    assert _with_shards(from_flat({"shards_uri": "s3://b/c"}), tmp_path).cluster.shards_uri == "s3://b/c"
