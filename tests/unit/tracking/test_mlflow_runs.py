from pathlib import Path

import pytest

from ivcp import tracking
from ivcp.settings import RunConfig, from_flat
from ivcp.tracking import client


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for the module: creating its tables takes seconds."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch):
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "RANK"):
        monkeypatch.delenv(name, raising=False)


def _run(store: Path, run_id: str):
    return client.connect(tracking.tracking_uri(RunConfig(), default_store=store)).get_run(run_id)


def test_the_store_is_the_setting_then_the_environment_then_sqlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    setting = from_flat({"mlflow_tracking_uri": "http://mlflow:5000"})
    assert tracking.tracking_uri(RunConfig(), default_store=tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://other:5000")
    assert tracking.tracking_uri(RunConfig(), default_store=tmp_path) == "http://other:5000"
    assert tracking.tracking_uri(setting, default_store=tmp_path) == "http://mlflow:5000"


def test_a_run_of_its_own_is_started_filled_and_finished(store: Path, tmp_path: Path):
    (tmp_path / "curve.png").write_bytes(b"png")
    config = from_flat({"learning_rate": 0.5, "model_name_or_path": "m" * 9000})
    with tracking.tracked_run(config, step="training", default_store=store) as run:
        run.log_metrics({"loss": 2.0}, step=1)
        run.log_metrics({"loss": 1.0, "top1_accuracy": 0.5}, step=2)
        run.log_artifact(tmp_path / "curve.png", folder="plots")
    found = _run(store, run.run_id)
    assert found.info.status == "FINISHED"
    assert found.data.params["learning_rate"] == "0.5"
    assert len(found.data.params["model_name_or_path"]) == 500
    assert found.data.metrics == {"loss": 1.0, "top1_accuracy": 0.5}
    assert found.data.tags["step.training"] == "FINISHED"
    artifacts = Path(found.info.artifact_uri.removeprefix("file://"))
    assert artifacts.is_relative_to(store / "mlartifacts")
    assert (artifacts / "plots" / "curve.png").read_bytes() == b"png"
    assert "m" * 9000 in (artifacts / "training" / "run_config.json").read_text()


def test_a_failed_step_ends_its_run_as_failed(store: Path):
    with (
        pytest.raises(RuntimeError, match="out of clips"),
        tracking.tracked_run(RunConfig(), step="training", default_store=store) as run,
    ):
        raise RuntimeError("out of clips")
    assert _run(store, run.run_id).info.status == "FAILED"


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
    found = _run(store, run_id)
    assert found.info.status == "RUNNING"
    assert found.info.run_name == "nightly"
    assert found.data.params["output_dir"] == "runs/output"
    assert found.data.params["evaluation.output_dir"] == "elsewhere"
    assert found.data.tags["step.evaluation"] == "FINISHED"
    tracking.finish_pipeline_run(run_id, "FAILED", config=config, default_store=store)
    assert _run(store, run_id).info.status == "FAILED"


def test_an_unknown_run_id_is_explained(store: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    with (
        pytest.raises(ValueError, match=r"MLFLOW_RUN_ID = 000.*unset MLFLOW_RUN_ID"),
        tracking.tracked_run(RunConfig(), step="training", default_store=store),
    ):
        pass


def test_other_ranks_log_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RANK", "1")
    with tracking.tracked_run(RunConfig(), step="training", default_store=tmp_path) as run:
        run.log_metrics({"loss": 1.0})
        run.log_artifact(tmp_path / "missing.png")
    assert run.run_id is None
    assert not list(tmp_path.iterdir())


def test_nothing_is_logged_without_mlflow_in_report_to(tmp_path: Path):
    with tracking.tracked_run(from_flat({"report_to": "none"}), step="training", default_store=tmp_path) as run:
        run.log_metrics({"loss": 1.0})
    assert run.run_id is None
    assert not list(tmp_path.iterdir())


def test_registering_twice_moves_the_alias(store: Path, tmp_path: Path):
    config = from_flat({"registered_model_name": "walks"})
    run_id = tracking.start_pipeline_run(config, default_store=store)
    versions = [
        tracking.register_model(
            tmp_path / "runs of today" / name,
            config=config,
            metrics={"top1_accuracy": accuracy},
            run_id=run_id,
            tags={"test_fingerprint": "abc"},
            default_store=store,
        )
        for name, accuracy in (("first", 0.5), ("second", 0.875))
    ]
    assert [version.version for version in versions] == [1, 2]
    champion = tracking.find_champion(config, default_store=store)
    assert champion is not None
    assert champion.version == 2
    assert champion.model_dir == str(tmp_path / "runs of today" / "second")
    assert champion.top1_accuracy == 0.875
    assert champion.test_fingerprint == "abc"


def test_a_repeated_step_registers_one_version(store: Path, tmp_path: Path):
    config = from_flat({"registered_model_name": "repeated"})
    run_id = tracking.start_pipeline_run(config, default_store=store)
    versions = [
        tracking.register_model(
            "s3://bucket/model", config=config, metrics={}, run_id=run_id, tags={}, default_store=store
        )
        for _ in range(2)
    ]
    assert versions[0] == versions[1]
    champion = tracking.find_champion(config, default_store=store)
    assert champion is not None
    assert champion.model_dir == "s3://bucket/model"
    assert champion.top1_accuracy is None


def test_no_champion_without_a_model_an_alias_or_a_store(store: Path, tmp_path: Path):
    assert tracking.find_champion(from_flat({"registered_model_name": "nobody"}), default_store=store) is None
    config = from_flat({"registered_model_name": "no-alias"})
    tracking.register_model(tmp_path, config=config, metrics={}, run_id=None, tags={}, default_store=store)
    other = from_flat({"registered_model_name": "no-alias", "model_alias": "best"})
    assert tracking.find_champion(other, default_store=store) is None
    assert tracking.find_champion(config, default_store=tmp_path) is None
    assert not (tmp_path / "mlflow.db").exists()
