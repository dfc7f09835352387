import pytest
from kfp import dsl

from ivcp.pipeline_runs.local import _for_one_machine, _tracked, _with_shards
from ivcp.pipeline_runs.run_folder import open_run_folder
from ivcp.settings import from_flat
from pipelines.action_cls import action_cls
from tests.ports import free_port


def tasks(pipeline):
    spec = pipeline.pipeline_spec
    dags = [spec.root.dag, *(component.dag for component in spec.components.values())]
    return {name: task for dag in dags for name, task in dag.tasks.items()}


def retries(pipeline) -> int:
    return sum(task.HasField("retry_policy") for task in tasks(pipeline).values())


def test_a_failure_on_one_machine_is_not_tried_again():
    assert retries(_for_one_machine("run1", in_parts=True)) == 0
    assert retries(action_cls(in_parts=True)) == 9  # and the pipeline for clusters stays what it is


def test_steps_that_are_done_are_kept_and_short_ones_run_again():
    found = tasks(_for_one_machine("run1", in_parts=True))
    kept = {name for name, task in found.items() if task.caching_options.enable_cache}
    assert kept == {"data-validation", "training", "evaluation", "export", "serving"}


def test_a_run_has_the_same_id_whenever_it_goes_on():
    given = [
        parameter.runtime_value.constant.string_value
        for task in tasks(_for_one_machine("run1", in_parts=True)).values()
        for parameter in task.inputs.parameters.values()
    ]
    assert given.count("run1") == 4  # run_start, preprocessing_plan, training, run_end
    assert dsl.PIPELINE_JOB_ID_PLACEHOLDER not in given


@pytest.mark.parametrize("in_parts", [False, True])
def test_a_run_that_measures_only_ends_behind_the_evaluation(in_parts):
    whole, measured = (
        tasks(_for_one_machine("run1", in_parts=in_parts, measures_only=only)).keys() for only in (False, True)
    )
    left_out = whole - measured
    assert len(left_out) == 1
    assert left_out.pop().startswith("condition-")
    assert {"training", "evaluation"} <= measured


def test_clips_go_where_the_settings_say(tmp_path):
    assert _with_shards(from_flat({}), tmp_path).cluster.shards_uri == str(tmp_path / "clips")
    assert _with_shards(from_flat({"shards_uri": "s3://b/c"}), tmp_path).cluster.shards_uri == "s3://b/c"


def test_a_run_starts_though_mlflow_is_away(tmp_path, caplog):
    uri = f"http://127.0.0.1:{free_port()}"
    config = from_flat({"mlflow_tracking_uri": uri})
    with open_run_folder(tmp_path, fingerprint="a", uri=uri, name=None, fresh=False) as folder:
        assert _tracked(config, folder, tmp_path) == folder
    assert "starting the run in MLflow: MLflow does not do its part" in caplog.text
