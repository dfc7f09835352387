"""Whole runs on this machine, through KFP's local runner: passed, refused by the gate, and failed."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ivcp.demo.sample_data import generate_sample_data
from ivcp.demo.tiny_model import build_tiny_model
from ivcp.records import PreparedIndex
from ivcp.settings import config_from_settings
from ivcp.tracking import ENDED_TAG, find_champion

IVCP = Path(sys.executable).parent / "ivcp"


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A folder with a small data set, a base model with random weights, and a settings file."""
    folder = tmp_path_factory.mktemp("project")
    generate_sample_data(folder / "data", num_train_clips=40, num_test_clips=20)
    build_tiny_model(folder / "models" / "tiny", warm_up=False)
    build_tiny_model(folder / "models" / "tiny-qwen3-vl", architecture="qwen3_vl", warm_up=False)
    settings = {
        "model_name_or_path": "models/tiny",
        "dataset": "sample_train",
        "test_dataset": "sample_test",
        "val_size": 0.2,
        "num_train_epochs": 1,
        "per_device_train_batch_size": 8,
        "per_device_eval_batch_size": 20,
        "learning_rate": 1e-3,
        "video_num_frames": 4,
        "video_min_pixels": 2304,
        "video_max_pixels": 2304,
        "preprocessing_parts": 2,
        "disable_gradient_checkpointing": True,
        "disturb_frames": ["reversed", "middle"],
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(settings))
    return folder


def ivcp(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "COLUMNS": "200"}
    return subprocess.run(
        [str(IVCP), *words], cwd=project, capture_output=True, text=True, timeout=900, env=environment, check=False
    )


def mlflow_run(store: str, summary: dict) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=store).get_run(summary["mlflow_run_id"])


@pytest.fixture(scope="module")
def passed(project):
    return ivcp(project, "run", "run.yaml")


@pytest.mark.slow
def test_a_run_that_passes(project, passed):
    assert passed.returncode == 0, passed.stdout + passed.stderr
    summary = json.loads((project / "runs/latest/summary.json").read_text())

    assert summary["status"] == "succeeded"
    assert list(summary["steps"]) == [
        "data_validation",
        "preprocessing",
        "training",
        "evaluation",
        "export",
        "serving",
    ]
    assert summary["clips"] == {"train": 32, "val": 8, "test": 20}
    assert 0 <= summary["top1_accuracy"] <= 1
    assert {result["kind"] for result in summary["metrics"]["disturbed"]} == {"none", "reversed", "middle"}
    assert Path(summary["evaluation_report"]).read_text().startswith("<!DOCTYPE html>")
    assert "answers" in summary["results"]["serving"]
    assert f"python3 -m webbrowser {summary['evaluation_report']}" in passed.stdout
    assert f"mlflow ui --backend-store-uri sqlite:///{project}/runs/mlflow.db" in passed.stdout
    assert "ivcp predict --model-dir" in passed.stdout


@pytest.mark.slow
def test_the_run_is_in_mlflow(project, passed):
    summary = json.loads((project / "runs/latest/summary.json").read_text())
    store = f"sqlite:///{project}/runs/mlflow.db"
    run = mlflow_run(store, summary)

    assert run.info.status == "FINISHED"
    assert run.data.tags[ENDED_TAG] == summary["results"]["serving"]
    assert run.data.params["learning_rate"] == "0.001"
    assert run.data.metrics["test/top1_accuracy"] == pytest.approx(summary["top1_accuracy"])
    champion = find_champion(config_from_settings({"mlflow_tracking_uri": store}))
    assert champion is not None
    assert champion.top1_accuracy == pytest.approx(summary["top1_accuracy"])
    assert Path(champion.model_dir).resolve() == Path(summary["model_dir"]).resolve()


@pytest.mark.slow
def test_the_exported_model_predicts(project, passed):
    video = next((project / "data" / "videos" / "test").iterdir())
    predicted = ivcp(project, "predict", "--model-dir", "runs/latest/model", str(video))

    assert predicted.returncode == 0, predicted.stderr
    assert video.name in predicted.stdout
    lines = (project / "runs/latest/evaluation/predictions.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    expected = next(row["predicted_name"] for row in rows if row["video"].endswith(video.name))
    assert expected in predicted.stdout

    (project / "bad.mp4").write_text("no video")
    with_a_bad_one = ivcp(project, "predict", "--model-dir", "runs/latest/model", "bad.mp4", str(video))
    assert with_a_bad_one.returncode == 1
    assert "not_a_video" in with_a_bad_one.stdout
    assert expected in with_a_bad_one.stdout


@pytest.mark.slow
def test_clips_are_the_same_prepared_in_parts_and_at_once(project, passed):
    """`run.yaml` has two parts, in KFP's loop; without them the pipeline has none."""
    at_once = ivcp(project, "run", "run.yaml", "preprocessing_parts=1", "--no-deploy", "--runs-dir", "at-once")
    assert at_once.returncode == 0, at_once.stdout + at_once.stderr
    files = [
        next((project / runs / "latest/pipeline").glob("*/preprocessing/prepared")) for runs in ("runs", "at-once")
    ]
    indexes = [PreparedIndex.read(file) for file in files]

    assert "preprocessing-part" not in (project / "at-once/latest/pipeline.log").read_text()
    assert "preprocessing-part" in (project / "runs/latest/pipeline.log").read_text()
    assert indexes[0].fingerprint == indexes[1].fingerprint
    assert indexes[0].num_clips == indexes[1].num_clips == {"train": 32, "val": 8, "test": 20}
    assert [shard.sha256 for shard in indexes[0].shards] == [shard.sha256 for shard in indexes[1].shards]


@pytest.mark.slow
def test_the_gate_refuses(project, passed):
    refused = ivcp(project, "run", "run.yaml", "min_top1_accuracy=0.999", "--no-deploy", "--runs-dir", "refused")
    summary = json.loads((project / "refused/latest/summary.json").read_text())

    assert refused.returncode == 3, refused.stdout + refused.stderr
    assert summary["status"] == "refused"
    assert "export" not in summary["steps"]
    assert summary["model_dir"] is None
    assert "min_top1_accuracy" in summary["results"]["evaluation"]
    ended = mlflow_run(f"sqlite:///{project}/refused/mlflow.db", summary).data.tags[ENDED_TAG]
    assert ended.startswith("the gate refused: ")


@pytest.mark.slow
def test_a_failing_step_fails_the_run_with_its_cause(project):
    failed = ivcp(project, "run", "run.yaml", "num_action_classes=51", "--runs-dir", "failed")
    summary = json.loads((project / "failed/latest/summary.json").read_text())

    assert failed.returncode == 1
    assert summary["status"] == "failed"
    assert "data_validation failed" in summary["error"]
    assert "num_action_classes" in failed.stderr
    assert list(summary["steps"]) == ["data_validation"]


@pytest.mark.slow
def test_the_steps_one_by_one(project):
    """What users of LLaMA-Factory do: one file, one command per step; here with the other architecture."""
    words = ["run.yaml", "output_dir=single", "save_strategy=no", "model_name_or_path=models/tiny-qwen3-vl"]
    trained = ivcp(project, "train", *words)
    assert trained.returncode == 0, trained.stderr
    assert (project / "single/action_decoder.safetensors").is_file()

    exported = ivcp(project, "export", *words, "registered_model_name=of-single-steps")  # no champion of the runs
    assert exported.returncode == 0, exported.stderr
    assert (project / "single/model/config.json").is_file()

    again = ivcp(project, "train", *words)
    assert again.returncode == 2
    assert "overwrite_output_dir" in again.stderr


@pytest.mark.slow
def test_nothing_is_trained_again_where_nothing_changed(project, passed):
    """Behind the others: it becomes the last run of the folder."""
    again = ivcp(project, "run", "run.yaml", "skip_unchanged=true", "run_name=again")
    summary = json.loads((project / "runs/latest/summary.json").read_text())

    assert again.returncode == 0, again.stdout + again.stderr
    assert summary["status"] == "unchanged"
    assert list(summary["steps"]) == ["data_validation", "preprocessing"]
    assert "nothing changed since ivcp-action-classifier v" in summary["results"]["preprocessing"]
