from kfp import dsl

from ivcp.pipeline_runs.local import _for_one_machine, _with_shards
from ivcp.settings import from_flat
from pipelines.action_cls import action_cls


def tasks(pipeline):
    spec = pipeline.pipeline_spec
    dags = [spec.root.dag, *(component.dag for component in spec.components.values())]
    return {name: task for dag in dags for name, task in dag.tasks.items()}


def retries(pipeline) -> int:
    return sum(task.HasField("retry_policy") for task in tasks(pipeline).values())


def test_a_failure_on_one_machine_is_not_tried_again():
    assert retries(_for_one_machine("run1")) == 0
    assert retries(action_cls) == 9  # and the pipeline for clusters stays what it is


def test_steps_that_are_done_are_kept_and_short_ones_run_again():
    kept = {name for name, task in tasks(_for_one_machine("run1")).items() if task.caching_options.enable_cache}
    assert kept == {"data-validation", "training", "evaluation", "export", "serving"}


def test_a_run_has_the_same_id_whenever_it_goes_on():
    given = [
        parameter.runtime_value.constant.string_value
        for task in tasks(_for_one_machine("run1")).values()
        for parameter in task.inputs.parameters.values()
    ]
    assert given.count("run1") == 4  # run_start, preprocessing_plan, training, run_end
    assert dsl.PIPELINE_JOB_ID_PLACEHOLDER not in given


def test_clips_go_where_the_settings_say(tmp_path):
    assert _with_shards(from_flat({}), tmp_path).cluster.shards_uri == str(tmp_path / "clips")
    assert _with_shards(from_flat({"shards_uri": "s3://b/c"}), tmp_path).cluster.shards_uri == "s3://b/c"
