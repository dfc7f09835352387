"""`ivcp submit` of a curriculum, against a server that speaks KFP's API."""

import contextlib

import pytest

from ivcp.cli.cluster_commands import submit_command
from ivcp.pipeline_runs.follow import follow_run
from ivcp.settings import config_from_settings, read_pasted
from ivcp.settings.curriculum import curriculum_from_settings, read_curriculum
from ivcp.settings.form import description
from ivcp.tracking import open_pipeline_run, tracked_run
from tests.curricula import write_curriculum
from tests.kfp_api.server import kfp_server

SETTINGS = {
    "dataset_dir": "s3://bucket/data",
    "shards_uri": "s3://bucket/clips",
    "models_uri": "s3://bucket/models",
    "weight_decay": 0.1,
}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    for name in ("KF_PIPELINES_ENDPOINT", "KFP_TOKEN", "KFP_COOKIE", "KFP_USER", "KFP_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)


def test_a_curriculum_is_a_run_of_its_own_pipeline(tmp_path):
    file = write_curriculum(tmp_path, ["questions.yaml", {"settings": "actions.yaml", "lora_rank": 16}], **SETTINGS)
    with kfp_server() as kfp:
        submit_command([str(file), "seed=5"], endpoint=kfp.url)
        [run], [pipeline], [version] = kfp.store.runs, kfp.store.pipelines, kfp.store.versions
    assert (pipeline.display_name, pipeline.description) == ("curriculum-2", description(2))
    assert "comp-training-2" in version.pipeline_spec["pipeline_spec"]["components"]
    assert run.display_name.startswith("curriculum-2 ")
    given = run.runtime_config.parameters
    assert set(given) == {"settings", "overrides", "deploy"}
    stages = curriculum_from_settings(read_pasted(given["settings"]), source="the form")
    assert [stage.config.flat() for stage in stages] == [
        stage.config.flat() for stage in read_curriculum(file, {"seed": 5})
    ]


def test_the_failed_stage_of_a_curriculum_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(follow_run.__kwdefaults__, "poll_seconds", 0.01)
    mlflow = {"mlflow_tracking_uri": f"sqlite:///{tmp_path}/mlflow.db"}
    file = write_curriculum(tmp_path, ["questions.yaml", "actions.yaml"], **SETTINGS | mlflow)

    def begin(run_id):
        started = open_pipeline_run(config_from_settings(mlflow), pipeline_run=f"{run_id}-2", run_name="mine")
        step = tracked_run(config_from_settings(mlflow | {"mlflow_run_id": started}), step="training")
        with contextlib.suppress(MemoryError), step:
            raise MemoryError("no clip fits")

    with kfp_server() as kfp:
        kfp.store.outcome, kfp.store.begins = "FAILED", begin
        with pytest.raises(RuntimeError, match="failed: stage 2: training failed: MemoryError: no clip fits"):
            submit_command([str(file)], endpoint=kfp.url, wait=True)
