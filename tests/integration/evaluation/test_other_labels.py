"""Several classes, heads and numbers go the whole way: prepared, trained, measured, exported, and answered."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from sklearn.metrics import accuracy_score, average_precision_score, mean_absolute_error

from ivcp import steps
from ivcp.demo.labelled_clip import FASTEST, HEADS, MOTIONS, SLOWEST, LabelKind
from ivcp.demo.sample_labels import generate_labelled_data
from ivcp.records import Labels
from ivcp.records.target_evaluation import TargetMetrics
from ivcp.records.thresholds import THRESHOLDS_FILE, Thresholds
from ivcp.serving.app import create_app
from ivcp.serving.settings import ServerSettings
from ivcp.settings import config_from_settings
from tests.ready import wait_until_ready
from tests.tiny_families import build_tiny_family

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_family(tmp_path_factory.mktemp("models") / "tiny", "qwen2_vl")


class Run:
    """What became of a tiny run on drawn clips."""

    def __init__(self, folder: Path, base: Path, kind: LabelKind, **settings: Any) -> None:
        generate_labelled_data(folder / "data", kind, num_train_clips=48, num_test_clips=18, workers=1)
        config = config_from_settings(
            {
                "model_name_or_path": str(base),
                "dataset": "sample_train",
                "test_dataset": "sample_test",
                "dataset_dir": str(folder / "data"),
                "val_size": 20,
                "output_dir": str(folder / "adapter"),
                "export_dir": str(folder / "model"),
                "video_num_frames": 4,
                "video_max_pixels": 1024,
                "preprocessing_num_workers": 1,
                "per_device_train_batch_size": 6,
                "num_train_epochs": 1,
                "learning_rate": 1e-2,
                "finetuning_type": "freeze",
                "freeze_trainable_layers": 0,
                "load_best_model_at_end": True,
                "save_strategy": "epoch",
                "report_to": "none",
                "mlflow_tracking_uri": f"sqlite:///{folder}/mlflow.db",
                **settings,
            }
        )
        self.folder = folder
        steps.train(config)
        measured = steps.evaluate(config)
        assert isinstance(measured, TargetMetrics)
        self.metrics = measured
        self.exported = steps.export(config)
        lines = (steps.results_dir(config) / "predictions.jsonl").read_text().splitlines()
        self.predictions = [json.loads(line) for line in lines]
        self.report = (steps.results_dir(config) / "report.html").read_text()
        self.card = (folder / "model" / "README.md").read_text()

    def ask(self) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any]]:
        """What a server says of the first test clip: answer, timeline, description, and V2 outputs."""
        video = self.predictions[0]["video"]
        with TestClient(create_app(self.folder / "model", settings=ServerSettings(num_decoders=1))) as client:
            wait_until_ready(client)
            files = {"video": ("a.mp4", Path(video).read_bytes())}
            answer, timeline = (client.post(path, files=files) for path in ("/v1/predict", "/v1/timeline"))
            assert (answer.status_code, timeline.status_code) == (200, 200)
            url = {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}}
            refused = client.post("/classify", json={"messages": [{"role": "user", "content": [url]}]})
            assert refused.status_code == 422 or refused.status_code == 400
            assert "not one class" in refused.text
            inputs = [{"name": "video", "shape": [1], "datatype": "BYTES", "data": [_base64(video)]}]
            inferred = client.post("/v2/models/model/infer", json={"inputs": inputs})
            outputs = {output["name"]: output for output in inferred.json()["outputs"]}
            return answer.json(), timeline.json(), client.get("/v1/model").json(), outputs


def _base64(path: str) -> str:
    import base64

    return base64.b64encode(Path(path).read_bytes()).decode()


def test_several_classes_at_once(base: Path, tmp_path: Path) -> None:
    run = Run(
        tmp_path, base, "multi", problem_type="multi_label_classification", gate_metric="f1_micro", gate_minimum=0.01
    )
    assert Labels.read(tmp_path / "model" / "labels.json").kind == "classes"
    truth = np.array([[name in row["label_names"] for name in MOTIONS] for row in run.predictions])
    shares = np.array([row["probabilities"] for row in run.predictions])
    assert run.metrics.metrics["mean_average_precision"] == pytest.approx(average_precision_score(truth, shares))
    thresholds = Thresholds.read(tmp_path / "model" / THRESHOLDS_FILE)
    assert thresholds == run.metrics.thresholds
    shown = shares >= np.array(thresholds.thresholds)
    assert [row["predicted_names"] for row in run.predictions] == [
        [name for name, is_shown in zip(MOTIONS, row, strict=True) if is_shown] for row in shown
    ]
    assert "f1_micro" in run.metrics.gate.reasons[0]
    assert run.exported.merge.max_logit_difference is not None
    assert "any number of them at once" in run.card
    assert "From which probability on is a class shown?" in run.report
    answer, timeline, model, outputs = run.ask()
    assert (answer["problem_type"], answer["label"]) == ("multi_label_classification", None)
    assert answer["logits"] == pytest.approx(run.predictions[0]["logits"], abs=1e-3)
    expected = {name for name, is_shown in zip(MOTIONS, shown[0], strict=True) if is_shown}
    assert {score["label_name"] for score in answer["labels"]} == expected
    assert {part["label_name"] for part in timeline["segments"]} == expected
    assert model["thresholds"] == pytest.approx(thresholds.thresholds)
    assert outputs["labels"]["data"] == shown[0].astype(int).tolist()


def test_two_heads(base: Path, tmp_path: Path) -> None:
    run = Run(tmp_path, base, "heads", action_heads="action,direction", action_decoder_type="mlp")
    right = [row["predicted_names"] == row["label_names"] for row in run.predictions]
    assert run.metrics.metrics["joint_accuracy"] == pytest.approx(np.mean(right))
    actions = [[row[key][0] for row in run.predictions] for key in ("label_names", "predicted_names")]
    assert run.metrics.metrics["action_top1_accuracy"] == pytest.approx(accuracy_score(*actions))
    assert sum(map(sum, run.metrics.confusion_matrices["direction"])) == len(run.predictions)
    assert "with 2 heads: action, direction" in run.card
    answer, timeline, model, outputs = run.ask()
    said = [f"{name}: {head['label_name']}" for name, head in answer["heads"].items()]
    assert said == run.predictions[0]["predicted_names"]
    assert {part["head"] for part in timeline["segments"]} == set(HEADS)
    assert model["heads"] == {name: list(classes) for name, classes in HEADS.items()}
    assert outputs["label_name"]["data"] == [head["label_name"] for head in answer["heads"].values()]


def test_a_number(base: Path, tmp_path: Path) -> None:
    run = Run(tmp_path, base, "speed", problem_type="regression", gate_metric="mae", gate_maximum=10)
    values = [[row[key] for row in run.predictions] for key in ("value", "predicted_value")]
    assert run.metrics.metrics["mae"] == pytest.approx(mean_absolute_error(*values))
    assert run.metrics.gate.reasons[0].startswith("mae ")
    scale = Labels.read(tmp_path / "model" / "labels.json").scale
    assert scale is not None
    assert SLOWEST < scale.mean < FASTEST
    answer, timeline, _, outputs = run.ask()
    assert answer["value"] == pytest.approx(run.predictions[0]["predicted_value"], abs=1e-3)
    assert answer["value"] == pytest.approx(scale.restored(answer["logits"][0]))
    assert timeline["segments"] == []
    assert timeline["windows"][0]["value"] == pytest.approx(outputs["value"]["data"][0], abs=0.5)
