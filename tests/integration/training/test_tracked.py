"""What a training leaves in MLflow."""

import json
import re
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient

from ivcp.records import PreparedIndex
from ivcp.settings import config_from_settings
from ivcp.training.train import train_model
from tests.integration.training_data import training_settings, write_training_data


def test_a_run_is_described_and_every_row_of_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
    torch.set_num_threads(1)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    index = PreparedIndex.read(write_training_data(tmp_path))
    settings = training_settings(
        tmp_path, tmp_path / "adapter", report_to="mlflow", mlflow_tracking_uri=uri, plot_loss=True
    )
    train_model(config_from_settings(settings), index=index, output_dir=tmp_path / "adapter")

    client = MlflowClient(uri)
    [experiment] = [found for found in client.search_experiments() if found.name == "ivcp"]
    [run] = client.search_runs([experiment.experiment_id])
    metrics, tags = run.data.metrics, run.data.tags
    assert not [name for name in metrics if "parameters" in name]  # constants are no curves: the description has them
    assert re.search(r"\| lora \| ([\d,]+) \| \1 \|", tags["mlflow.note.content"])
    assert re.search(r"\| vision\\_tower \| 0 \| [1-9]", tags["mlflow.note.content"])
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    [read] = run.inputs.dataset_inputs
    assert read.dataset.digest == "prepared"
    assert json.loads(read.dataset.profile)["num_train_clips"] == index.num_clips["train"]
    assert metrics["system/cpu_utilization_percentage"] >= 0
    expected = {"loss", "grad_norm", "learning_rate/action_decoder", "clips_per_second", "padding_share"}
    assert {f"train/{name}" for name in expected | {"data_wait_share", "eval_top1_accuracy"}} <= set(metrics)
    assert [point.step for point in client.get_metric_history(run.info.run_id, "train/loss")] == [1, 2, 3, 4]
    assert tags["ivcp.prepared_fingerprint"] == "prepared"
    assert tags["ivcp.git_commit"]
    assert run.data.params["lora_rank"] == "4"
    stored = {file.path for file in client.list_artifacts(run.info.run_id, "training")}
    assert {"training/run_config.json", "training/run_record.json", "training/training_curves.png"} <= stored
