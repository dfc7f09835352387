from pathlib import Path

import pytest

from ivcp import tracking
from ivcp.settings import RunConfig, from_flat
from tests.unit.tracking.conftest import mlflow_run


def test_a_run_of_its_own_is_started_filled_and_finished(store: Path, tmp_path: Path):
    (tmp_path / "curve.png").write_bytes(b"png")
    config = from_flat({"learning_rate": 0.5, "model_name_or_path": "m" * 9000})
    with tracking.tracked_run(config, step="training", default_store=store) as run:
        run.log_metrics({"loss": 2.0}, step=1)
        run.log_metrics({"loss": 1.0, "top1_accuracy": 0.5}, step=2)
        run.log_artifact(tmp_path / "curve.png", folder="plots")
    found = mlflow_run(store, run.run_id)
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
    assert mlflow_run(store, run.run_id).info.status == "FAILED"


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
