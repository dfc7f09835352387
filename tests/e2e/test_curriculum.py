"""A curriculum through real runs: captions by sft, then classes on the model that came of it."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import yaml
from kfp import local
from mlflow import MlflowClient

from ivcp.demo.sample_data import generate_sample_data
from ivcp.demo.tiny_model import build_tiny_model
from ivcp.pipeline_runs.installed import load_pipeline
from ivcp.pipeline_runs.parameters import curriculum_arguments
from ivcp.settings.curriculum import read_curriculum
from tests.conftest import REPOSITORY
from tests.data_sets import make_clip
from tests.tiny_families import build_tiny_family

IVCP = Path(sys.executable).parent / "ivcp"
USERS_FILES = REPOSITORY / "tests" / "integration" / "launch" / "users_files"
COMMON = {
    "model_name_or_path": "models/tiny",
    "dataset_dir": "data/sample",
    "num_train_epochs": 1,
    "learning_rate": 1e-3,
    "video_num_frames": 2,
    "video_min_pixels": 2304,
    "video_max_pixels": 2304,
    "disable_gradient_checkpointing": True,
}
SFT = {
    "stage": "sft",
    "dataset": "sample_captions_train",
    "test_dataset": "sample_captions_test",
    "predict_with_generate": True,
    "max_new_tokens": 4,
}
CLASSES = {"dataset": "sample_train", "test_dataset": "sample_test", "baselines": []}


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    generate_sample_data(folder / "data" / "sample", num_train_clips=22, num_test_clips=11)
    build_tiny_model(folder / "models" / "tiny", warm_up=False)
    (folder / "captions.yaml").write_text(yaml.safe_dump(SFT))
    (folder / "curriculum.yaml").write_text(yaml.safe_dump({"curriculum": ["captions.yaml", CLASSES], **COMMON}))
    return folder


@pytest.fixture(scope="module")
def ran(project: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(IVCP), "run", "curriculum.yaml", "--no-deploy"],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=900,
        env={**os.environ, "OMP_NUM_THREADS": "2", "COLUMNS": "200"},
        check=False,
    )


@pytest.mark.slow
def test_classes_are_learned_on_the_model_that_has_learned_captions(project, ran):
    assert ran.returncode == 0, ran.stdout + ran.stderr
    first, second = sorted(path for path in (project / "runs").glob("2*") if path.is_dir())
    summaries = [json.loads((run / "summary.json").read_text()) for run in (first, second)]
    assert [summary["status"] for summary in summaries] == ["succeeded", "succeeded"]
    assert summaries[0]["metrics"]["stage"] == "sft"
    assert set(summaries[0]["metrics"]["generation"]["text"]) >= {"bleu_4", "rouge_l", "exact_match"}
    assert summaries[1]["metrics"]["top1_accuracy"] is not None
    learned = json.loads((second / "adapter" / "run_config.json").read_text())
    assert Path(learned["model_name_or_path"]).resolve() == (first / "model").resolve()
    assert "2-action_cls starts from" in ran.stderr
    assert (project / "runs" / "latest").resolve() == second.resolve()


@pytest.mark.slow
def test_answers_are_files_of_llama_factory(project, ran):
    first = min(path for path in (project / "runs").glob("2*") if path.is_dir())
    rows = [
        json.loads(line) for line in (first / "evaluation" / "generated_predictions.jsonl").read_text().splitlines()
    ]
    assert len(rows) == 11
    assert all(set(row) == {"prompt", "predict", "label"} for row in rows)
    assert {row["label"] for row in rows} >= {"The person is sitting down."}
    found = json.loads((first / "evaluation" / "predict_results.json").read_text())
    assert {"predict_bleu-4", "predict_rouge-1", "predict_rouge-2", "predict_rouge-l", "predict_runtime"} <= set(found)


@pytest.mark.slow
def test_runs_of_the_stages_lie_below_one_in_mlflow(project, ran):
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{project}/runs/mlflow.db")
    (experiment,) = [each for each in client.search_experiments() if each.name == "ivcp"]
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if run.info.run_name == "curriculum of 1-sft, 2-action_cls"]
    below = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(below) == 2
    assert {run.info.status for run in (parent, *below)} == {"FINISHED"}
    names = {model.name for model in client.search_registered_models()}
    assert names == {"ivcp-sft", "ivcp-action-classifier"}


@pytest.mark.slow
def test_the_pipeline_for_a_cluster_runs_the_same_stages(project, tmp_path, monkeypatch):
    """With KFP's local runner: what each stage is given, and what lies below what in MLflow."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setenv("PATH", f"{IVCP.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    warnings.filterwarnings("ignore", "You may be attemping to run a task", RuntimeWarning)  # the images are ours
    warnings.filterwarnings("ignore", "Task '.*': settings .* have no effect", UserWarning)  # placement
    here = {key: str(project / COMMON[key]) for key in ("model_name_or_path", "dataset_dir")}
    arguments = curriculum_arguments(read_curriculum(project / "curriculum.yaml", here), deploy=False)
    local.init(
        local.SubprocessRunner(use_venv=False),
        pipeline_root=str(tmp_path / "root"),
        workspace_root=str(tmp_path / "workspace"),
        raise_on_error=True,
    )
    load_pipeline(stages=2)(**arguments)

    (report,) = (tmp_path / "root").glob("*/run-end/report")
    assert report.read_text().startswith("stage 2 of 2: ivcp-action-classifier v1")
    (learned,) = (tmp_path / "root").glob("*/training-2/adapter/run_config.json")
    base = Path(json.loads(learned.read_text())["model_name_or_path"])
    assert base.parent == tmp_path / "root" / "models" / "ivcp-sft"
    runs = MlflowClient(os.environ["MLFLOW_TRACKING_URI"]).search_runs(["1"], order_by=["start_time"])
    assert [run.info.status for run in runs] == ["FINISHED"] * 3
    whole, first, second = runs
    assert base.name == first.info.run_id
    assert [run.data.tags.get("mlflow.parentRunId") for run in (first, second)] == [whole.info.run_id] * 2
    assert first.info.run_name == f"{whole.info.run_name}, 1-sft"
    assert "test/exact_match" in first.data.metrics
    assert "test/top1_accuracy" in second.data.metrics


@pytest.mark.nightly
def test_videoespresso_and_then_classes(shared_data, action_data, tmp_path):
    """The users' own rows and files, with drawn clips in place of videos that are not here."""
    rows = json.loads((shared_data / "annotations" / "IVCP" / "VideoEspresso_stage3.json").read_text())[:24]
    for number, row in enumerate(rows):
        row["videos"] = [str(Path(row["videos"][0]).with_suffix(".mp4"))]
        make_clip(action_data.folder / row["videos"][0], seed=100 + number)
    action_data.add("VideoEspresso_stage3", rows)
    sizes = {"video_maxlen": 4, "video_min_pixels": 1024, "video_max_pixels": 1024, "preprocessing_num_workers": 2}
    common = {
        "model_name_or_path": str(build_tiny_family(tmp_path / "base", "qwen3_vl")),
        "dataset_dir": str(action_data.folder),
        "num_train_epochs": 1,
        "test_size": 0.2,
        "val_size": 0.1,
    }
    stages = [
        {"settings": str(USERS_FILES / "my_video_training.yaml"), "stage": "sft", "dataset": "VideoEspresso_stage3"},
        {"settings": str(USERS_FILES / "action_cls_lora.yaml"), "dataset": "actions", "num_action_classes": 3},
    ]
    # What stands in the users' files wins over what is common to all stages.
    (tmp_path / "curriculum.yaml").write_text(
        yaml.safe_dump({"curriculum": [stage | common | sizes for stage in stages]})
    )
    done = subprocess.run(
        [str(IVCP), "run", "curriculum.yaml", "--no-deploy"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=900,
        env={**os.environ, "OMP_NUM_THREADS": "2", "COLUMNS": "200"},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    first, second = sorted(path for path in (tmp_path / "runs").glob("2*") if path.is_dir())
    told, classified = (json.loads((run / "summary.json").read_text())["metrics"] for run in (first, second))
    assert told["stage"] == "sft"
    assert told["metrics"]["perplexity"] > 1
    assert classified["top1_accuracy"] is not None
    learned = json.loads((second / "adapter" / "run_config.json").read_text())
    assert Path(learned["model_name_or_path"]).resolve() == (first / "model").resolve()
