"""The end of a run, asked of a server that behaves as the real one, where the word at the end says nothing."""

import kfp_server_api
import pytest

from ivcp.lifecycle.end import run_step
from ivcp.pipeline_runs import submit
from tests.ports import free_port


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    path = tmp_path_factory.mktemp("compiled") / "pipeline.yaml"
    submit.compile_pipeline(path, submit.Variant())
    return path.read_bytes()


@pytest.fixture
def report(kfp, server, package, tmp_path, monkeypatch):
    """What `run_end` reports of a run in a pod without MLflow; the API answers a step more each time it is asked."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "IVCP_STEP_RECORDS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", kfp.url)
    monkeypatch.setattr("ivcp.lifecycle.kfp_run._PAUSE_SECONDS", 0.01)
    pipeline = kfp.store.create_pipeline(kfp_server_api.V2beta1Pipeline(display_name="action-cls"))
    version = kfp.store.upload_version(package, "action-cls-1", pipeline.pipeline_id)
    reference = submit.PipelineVersion(
        pipeline.pipeline_id, version.pipeline_version_id, "action-cls-1", "action-cls", is_new=True
    )

    def made(state):
        run = submit.start_run(server, reference, {}, name="mine")
        path = tmp_path / "report.md"
        run_step("", {}, pipeline_run=run, state=state, error="", report=str(path))
        return path.read_text()

    return made


def test_the_step_that_failed_is_named(kfp, report):
    kfp.store.outcome, kfp.store.failing_step = "FAILED", "evaluation"
    assert report("RUNNING") == "a step failed: evaluation failed; see its log\n"


def test_steps_that_all_succeeded(report):
    assert report("RUNNING") == "all steps succeeded\n"


def test_a_word_that_is_known_is_not_asked_about(kfp, report):
    assert report("CANCELED") == "the run was cancelled\n"
    assert not [path for method, path in kfp.requests if method == "GET" and "/runs/" in path]


def test_a_server_that_is_away_leaves_it_open(report, monkeypatch):
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    assert report("RUNNING").startswith("how the run ended is not known: KFP calls it RUNNING")
