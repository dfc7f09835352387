"""Several trainings through real runs: folds, of which none is exported, and seeds, of which one is."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient

from ivcp.demo.sample_data import generate_sample_data
from ivcp.demo.tiny_model import build_tiny_model

IVCP = Path(sys.executable).parent / "ivcp"
NUM_CLIPS = 66
SETTINGS = {
    "model_name_or_path": "models/tiny",
    "dataset_dir": "data/sample",
    "dataset": "sample_train",
    "max_steps": 2,
    "learning_rate": 1e-3,
    "video_num_frames": 2,
    "video_min_pixels": 2304,
    "video_max_pixels": 2304,
    "baselines": "majority",
    "disable_gradient_checkpointing": True,
}


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    generate_sample_data(folder / "data" / "sample", num_train_clips=NUM_CLIPS, num_test_clips=11)
    build_tiny_model(folder / "models" / "tiny", warm_up=False)
    (folder / "my.yaml").write_text(yaml.safe_dump(SETTINGS))
    return folder


def run(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(IVCP), "run", "my.yaml", "--no-deploy", *words],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=900,
        env={**os.environ, "OMP_NUM_THREADS": "2", "COLUMNS": "200"},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def result_of(project: Path) -> tuple[Path, dict[str, Any]]:
    folder = max((project / "runs" / "series").glob("2*"))
    return folder, json.loads((folder / "series.json").read_text())


@pytest.mark.timeout(1800)
@pytest.mark.nightly
def test_folds_test_every_clip_once_and_the_data_are_looked_at_once(project):
    done = run(project, "folds=2", "val_size=0.1")
    folder, result = result_of(project)
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert sorted(row["clip_id"] for row in rows) == sorted(f"sample_train:{number}" for number in range(NUM_CLIPS))
    right = sum(row["prediction"] == row["label"] for row in rows)
    assert result["top1_accuracy"] == pytest.approx(right / NUM_CLIPS)
    runs = [Path(member["run_dir"]) for member in result["members"]]
    tested = [
        {json.loads(line)["facts"]["group"] for line in (r / "evaluation" / "predictions.jsonl").open()} for r in runs
    ]
    assert not tested[0] & tested[1]
    assert not any((run_dir / "model").exists() for run_dir in runs)
    said = done.stdout + done.stderr
    assert said.count(f"{NUM_CLIPS} clips decoded") == 1
    assert "Task data-validation cache hit" in said
    client = MlflowClient(tracking_uri=f"sqlite:///{project / 'runs' / 'mlflow.db'}")
    parents = {client.get_run(m["mlflow_run_id"]).data.tags["mlflow.parentRunId"] for m in result["members"]}
    assert client.get_run(parents.pop()).data.metrics["test/top1_accuracy"] == pytest.approx(right / NUM_CLIPS)
    assert not parents


@pytest.mark.timeout(1800)
@pytest.mark.nightly
def test_of_seeds_the_best_on_validation_is_exported(project):
    run(project, "seeds=2", "val_size=0.2", "test_size=0.2")
    _, result = result_of(project)
    figures = {member["name"]: member["val_top1_accuracy"] for member in result["members"]}
    assert result["chosen"] == max(figures, key=lambda name: figures[name])
    runs = {member["name"]: Path(member["run_dir"]) for member in result["members"]}
    assert {name for name, run_dir in runs.items() if (run_dir / "model").exists()} == {result["chosen"]}
    mean = sum(member["top1_accuracy"] for member in result["members"]) / 2
    assert result["top1_accuracy"] == pytest.approx(mean)
