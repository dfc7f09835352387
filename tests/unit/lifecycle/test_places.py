"""Where clips and models go when nobody says: below the pipeline root, at the same place in every run."""

import pytest

from ivcp.lifecycle.places import check_reachable, default_places, place_of_all_runs
from ivcp.settings import ConfigError
from tests.ports import free_port

RUN = "f2a1c3e4-0000-4000-8000-000000000001"


@pytest.mark.parametrize(
    ("root", "place"),
    [
        ("minio://mlpipeline/v2/artifacts", "s3://mlpipeline/v2/artifacts/action-cls"),
        ("s3://bucket", "s3://bucket/action-cls"),
        ("gs://bucket/team/root", "s3://bucket/team/root/action-cls"),
    ],
)
def test_all_runs_of_a_pipeline_root_share_it(root, place):
    """As a cluster's driver names artifacts: root, pipeline, run, task, a random word, artifact."""
    for run in (RUN, RUN[::-1]):
        uri = f"{root}/action-cls/{run}/run-start/0c5f/run_config"
        assert place_of_all_runs(uri, pipeline_run=run) == place


def test_on_one_machine_it_is_the_root_itself(tmp_path):
    uri = str(tmp_path / "action-cls-2026-11-29-12-00-00-000000" / "run-start" / "run_config")
    assert default_places(uri, pipeline_run=RUN) == {
        "shards_uri": str(tmp_path / "clips"),
        "models_uri": str(tmp_path / "models"),
    }


def test_a_root_that_the_steps_do_not_reach_is_named(monkeypatch):
    for name, value in (("ACCESS_KEY_ID", "key"), ("SECRET_ACCESS_KEY", "secret"), ("REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(ConfigError, match=r"s3://b/action-cls/clips, below the pipeline root.*ivcp-s3.*set shards_uri"):
        check_reachable("s3://b/action-cls/clips")
