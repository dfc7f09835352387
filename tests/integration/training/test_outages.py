"""What an outage of MLflow costs a training: a warning and some waiting."""

import logging
import math
import resource
import sqlite3
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from ivcp.settings import from_flat
from ivcp.tracking import RegistryError, outbox, register_model, tracked_run
from ivcp.tracking import client as tracking_client
from tests.mlflow_server import MlflowServer
from tests.ports import free_port
from tests.s3_api.proxy import proxy

STEPS = 30


def work(uri: str, *, at_step: dict[int, object] | None = None) -> str | None:
    """A training that logs every step; `at_step` is called on the way."""
    config = from_flat({"mlflow_tracking_uri": uri})
    with tracked_run(config, step="training") as run:
        for step in range(1, STEPS + 1):
            if at_step and step in at_step:
                run.flush()
                at_step[step]()  # type: ignore[operator]
            run.log_metrics({"train/loss": 1.0 / step}, step)
            if at_step and step in at_step:
                run.flush()
        run.set_tags({"data": "sample"})
    return run.run_id


def curve(uri: str, run_id: str | None) -> list[int]:
    return [point.step for point in MlflowClient(uri).get_metric_history(run_id, "train/loss")]


@pytest.fixture(autouse=True)
def _quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)  # what waits lies in its runs folder
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", *tracking_client._HTTP):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tracking_client, "_LOCKED_SECONDS", 0.2)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING and r.name.startswith("ivcp.")]


def test_a_server_that_is_down_is_said_once(caplog: pytest.LogCaptureFixture):
    began = time.monotonic()
    assert work(f"http://127.0.0.1:{free_port()}") is None
    assert time.monotonic() - began < 30
    first, last = warnings(caplog)
    assert "does not do its part" in first
    assert f"{STEPS + 7} entries of this run are missing" in last
    assert "kept in runs/mlflow-spool/" in last


def test_without_the_registry_nothing_is_registered():
    config = from_flat({"mlflow_tracking_uri": f"http://127.0.0.1:{free_port()}"})
    with pytest.raises(RegistryError, match=r"is not registered: MLflow's registry at http.* Repeat the step"):
        register_model("s3://bucket/model", config=config, metrics={}, run_id=None, tags={})


@pytest.mark.parametrize("begin", [1, 10])
def test_a_locked_file_gets_what_it_missed(
    begin: int, mlflow_uri: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    """Locked from the start or from the tenth step on, and free again at the end."""
    other = sqlite3.connect(mlflow_uri.removeprefix("sqlite:///"), isolation_level=None)
    lock = {begin: lambda: other.execute("BEGIN IMMEDIATE"), STEPS: lambda: other.execute("ROLLBACK")}
    run_id = work(mlflow_uri, at_step=lock)
    assert curve(mlflow_uri, run_id) == list(range(1, STEPS + 1))
    assert MlflowClient(mlflow_uri).get_run(run_id).info.status == "FINISHED"
    assert len(warnings(caplog)) == 1


def test_a_disk_that_is_full_for_a_while_gets_what_it_missed(
    mlflow_uri: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    """No file may grow, as on a full disk, from the tenth step to the last."""
    monkeypatch.setattr(outbox, "_PAUSE_SECONDS", 5.0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    limits = {
        10: lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard)),
        STEPS: lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard)),
    }
    try:
        run_id = work(mlflow_uri, at_step=limits)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert curve(mlflow_uri, run_id) == list(range(1, STEPS + 1))
    assert len(warnings(caplog)) == 1


def test_a_folder_that_cannot_be_written_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "file").write_text("no folder")
    assert work(f"sqlite:///{tmp_path}/file/mlflow.db") is None
    assert len(warnings(caplog)) == 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["is_busy", "is_denied", "cuts_answer", "seconds"])
def test_a_server_that_fails_for_a_while_gets_what_it_missed(
    kind: str, mlflow_server: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    """It answers 503, shows a login page, breaks connections off, or hangs; from the tenth step to the last."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setattr(outbox, "_PAUSE_SECONDS", 5.0)
    with proxy(mlflow_server) as (url, faults):
        fine = getattr(faults, kind)
        fault = (lambda _: 3.0) if kind == "seconds" else (lambda _: True)
        run_id = work(
            url, at_step={10: lambda: setattr(faults, kind, fault), STEPS: lambda: setattr(faults, kind, fine)}
        )
    assert curve(mlflow_server, run_id) == list(range(1, STEPS + 1))
    found = MlflowClient(mlflow_server).get_run(run_id)
    assert (found.info.status, found.data.tags["data"]) == ("FINISHED", "sample")
    assert found.data.params["learning_rate"]
    assert len(warnings(caplog)) == 1


@pytest.mark.slow
def test_a_server_that_comes_up_later(
    mlflow_server: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    with proxy(mlflow_server) as (url, faults):
        fine, faults.is_busy = faults.is_busy, lambda _: True
        run_id = work(url, at_step={STEPS: lambda: setattr(faults, "is_busy", fine)})
    assert curve(mlflow_server, run_id) == list(range(1, STEPS + 1))
    assert len(warnings(caplog)) == 1


def test_what_is_left_at_the_end_is_handed_in_by_the_next_step(mlflow_uri: str, tmp_path: Path):
    """The file is locked from the start to the end: even the run is started later."""
    (tmp_path / "report.html").write_text("as it was")
    other = sqlite3.connect(mlflow_uri.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with tracked_run(from_flat({"mlflow_tracking_uri": mlflow_uri, "run_name": "left"}), step="training") as run:
        run.log_metrics({"train/loss": float("nan")}, 1)
        run.log_artifact(tmp_path / "report.html", folder="evaluation")
        run.describe("Training", "1 step")
        run.describe("Training", "2 steps")
    assert run.run_id is None
    (tmp_path / "report.html").write_text("written over")
    other.execute("ROLLBACK")
    work(mlflow_uri)

    client = MlflowClient(mlflow_uri)
    experiment = client.get_experiment_by_name("ivcp")
    [left] = client.search_runs([experiment.experiment_id], "attributes.run_name = 'left'")
    assert left.info.status == "FINISHED"
    assert math.isnan(client.get_metric_history(left.info.run_id, "train/loss")[0].value)
    file = client.download_artifacts(left.info.run_id, "evaluation/report.html", str(tmp_path / "runs"))
    assert Path(file).read_text() == "as it was"
    note = left.data.tags["mlflow.note.content"]
    assert note.startswith("### Settings that are no defaults")
    assert note.endswith("### Training\n\n2 steps")
    assert not list(Path("runs/mlflow-spool").iterdir())


@pytest.mark.slow
def test_a_server_that_is_stopped_killed_and_restarted_misses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It hangs, answers again, is killed, and is away at the end: the next step hands in what is left."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setattr(outbox, "_PAUSE_SECONDS", 0.2)
    with MlflowServer(tmp_path) as server:
        run_id = work(server.url, at_step={10: server.stop, 15: server.go_on, 20: server.kill})
        left = list(Path("runs/mlflow-spool").glob("*/entries.jsonl"))
        assert len(left) == 1
        server.start()
        later = work(server.url)
        assert curve(server.url, run_id) == curve(server.url, later) == list(range(1, STEPS + 1))
        found = MlflowClient(server.url).get_run(run_id)
    assert (found.info.status, found.data.tags["data"]) == ("FINISHED", "sample")
    assert not list(Path("runs/mlflow-spool").iterdir())
