import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ivcp.pipeline_runs.run_folder import LocalRun, open_run_folder, run_fingerprint, take_validation
from ivcp.pipeline_runs.summary import RunSummary, summarize
from ivcp.settings import config_from_settings
from ivcp.storage.claims import InUseError
from ivcp.tracking import continue_pipeline_run, start_pipeline_run
from ivcp.tracking.steps import StepRecord


@pytest.fixture
def opened(tmp_path, mlflow_uri):
    """Opens the folder of a run and leaves it with a status; null is as a killed process leaves it."""

    def open_(fingerprint: str = "a", *, status: str | None = None, run_id: str | None = None, fresh: bool = False):
        with open_run_folder(
            tmp_path / "runs", fingerprint=fingerprint, uri=mlflow_uri, name=None, fresh=fresh
        ) as folder:
            if run_id is not None:
                folder = folder.tracked(run_id)
            if status is not None:
                summary = summarize(folder.path, seconds=1.0, error="", uri="", run_id="")
                summary.model_copy(update={"status": status}).write(folder.path / "summary.json")
        return folder

    return open_


def status_of(folder) -> str:
    return RunSummary.read(folder.path / "summary.json").status


@pytest.mark.parametrize("status", ["failed", "interrupted", None])
def test_a_run_that_did_not_come_to_its_end_goes_on(opened, tmp_path, status):
    first = opened(status=status)
    second = opened(status="succeeded")

    assert (first.goes_on, second.goes_on) == (False, True)
    assert second.path == first.path
    assert second.run.pipeline_run == first.run.pipeline_run
    assert (tmp_path / "runs" / "latest").resolve() == first.path


@pytest.mark.parametrize("status", ["succeeded", "refused", "unchanged"])
def test_one_that_came_to_its_end_is_begun_anew(opened, status):
    first, second = opened(status=status), opened(status=status)
    assert not second.goes_on
    assert second.path != first.path


def test_other_settings_and_fresh_ones_begin_anew(opened):
    first = opened("a", status="failed")
    other = opened("b", status="failed")
    fresh = opened("a", status="failed", fresh=True)
    assert len({first.path, other.path, fresh.path}) == 3
    assert opened("a", status="succeeded").path == fresh.path
    assert not opened("a", status="failed").goes_on  # the older one is the past of the one that succeeded


def test_nobody_else_works_in_the_folder(opened, tmp_path, mlflow_uri):
    with (
        open_run_folder(tmp_path / "runs", fingerprint="a", uri=mlflow_uri, name="x", fresh=False) as folder,
        ThreadPoolExecutor() as elsewhere,
        pytest.raises(InUseError, match="or start another run with --fresh"),
    ):
        elsewhere.submit(opened).result()
    assert folder.path.name.endswith("-x")


def test_a_killed_run_is_closed_by_whoever_comes_next(opened, mlflow_uri, caplog):
    from mlflow import MlflowClient

    config = config_from_settings({"mlflow_tracking_uri": mlflow_uri})
    run_id = start_pipeline_run(config)
    killed = opened("a", run_id=run_id)
    assert not (killed.path / "summary.json").exists()
    opened("b", status="succeeded")

    assert status_of(killed) == "interrupted"
    assert f"{killed.path.name} was killed" in caplog.text
    client = MlflowClient(tracking_uri=mlflow_uri)
    assert client.get_run(run_id).info.status == "KILLED"
    again = opened("a", status="succeeded")
    assert again.run.mlflow_run_id == run_id
    assert continue_pipeline_run(run_id, config=config)
    assert client.get_run(run_id).info.status == "RUNNING"
    assert not continue_pipeline_run("0" * 32, config=config)


def test_what_is_shown_of_the_interrupted_command_is_removed_and_what_is_done_stays(opened):
    folder = opened(status="failed")
    for step, status in (("data_validation", "succeeded"), ("preprocessing", "succeeded"), ("training", "failed")):
        StepRecord(step=step, status=status, seconds=1.0).write(folder.path / "steps" / f"{step}.json")
    opened(status="failed")
    assert [file.stem for file in (folder.path / "steps").iterdir()] == ["data_validation"]


def test_settings_data_and_how_steps_run_tell_runs_apart(action_data, tmp_path: Path):
    config = action_data.config()

    def fingerprint(**changed):
        given = {"config": config, "arguments": {"lora_rank": 8}, "uri": "sqlite:///a.db", "containers": False}
        given |= changed
        return run_fingerprint(given.pop("config"), given.pop("arguments"), **given)

    first = fingerprint()
    assert fingerprint() == first
    seen = {first, fingerprint(arguments={"lora_rank": 4}), fingerprint(uri="b"), fingerprint(containers=True)}
    (action_data.folder / "0.mp4").write_bytes(b"other")
    seen.add(fingerprint())
    seen.add(fingerprint(config=action_data.config(dataset="missing")))
    assert len(seen) == 6
    assert json.loads(json.dumps(sorted(seen)))


def test_the_validation_of_a_run_counts_for_another_one_on_the_same_data(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        (folder / "steps").mkdir(parents=True)
    cache = first / "pipeline" / ".kfp_cache"
    cache.mkdir(parents=True)
    (cache / "a.json").write_text('{"validated": {"uri": "there"}}')
    (cache / "b.json").write_text('{"adapter": {"uri": "there"}}')
    take_validation(first, second)  # which has not validated anything yet
    assert not (second / "pipeline").exists()
    StepRecord(step="data_validation", status="succeeded", seconds=1.0, directory=str(first)).write(
        first / "steps" / "data_validation.json"
    )
    take_validation(first, second)
    assert [path.name for path in (second / "pipeline" / ".kfp_cache").iterdir()] == ["a.json"]
    assert StepRecord.read(second / "steps" / "data_validation.json").directory == str(first)


def test_the_file_of_a_run_is_read_by_the_next_command(opened):
    folder = opened(status="failed")
    assert LocalRun.read(folder.path / "run.json") == folder.run


def test_folders_of_other_versions_are_left_alone(opened):
    older, newer = opened(status="failed"), opened("b", status="failed")
    (older.path / "summary.json").write_text('{"status": "succeeded", "words": "of another version"}')
    (newer.path / "run.json").write_text("{}")
    assert opened(status="failed").path not in (older.path, newer.path)
