"""Rows ask eight questions, predictor and server one: evaluation measures what is served."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from ivcp import steps
from ivcp.demo.tiny_model import build_tiny_model
from ivcp.records import PREDICTIONS_FILE, Prediction, read_lines
from ivcp.records.answers import Answer
from ivcp.records.evaluation import EvaluationMetrics
from ivcp.serving.app import create_app
from ivcp.serving.files import classify_files
from ivcp.settings import RunConfig, config_from_settings
from tests.ready import wait_until_ready
from tests.videos import write_video

pytestmark = pytest.mark.slow
QUESTIONS = [f"<video>{words}<ACTION>" for words in (
    "What is done?", "Which action is it?", "Name the action.", "What does the person do here, in one word or two?",
    "Action:", "Say what happens in this clip.", "What is to be seen?", "Classify.",
)]  # fmt: skip
SYSTEMS = ("", "You look at clips.", "You are careful, and answer in few words.")


@pytest.fixture(scope="module", params=["qwen2_vl", "qwen3_vl"])  # the second writes time stamps into its prompt
def config(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    folder = tmp_path_factory.mktemp(request.param)
    build_tiny_model(folder / "base", architecture=request.param, warm_up=False)
    rows = []
    for number in range(32):
        name = f"{number}.mp4"
        write_video(folder / name, num_frames=6 + 3 * (number % 9), size=64 + 16 * (number % 3), seed=number)
        turns = [
            {"from": "human", "value": QUESTIONS[number % 8 if number % 4 else 0]},
            {"from": "gpt", "value": "It is."},
        ]
        rows.append(
            {"conversations": turns, "system": SYSTEMS[number % 3], "videos": [name]}
            | {"action_label": ("run", "fall")[number % 2], "split": ("train", "test")[number >= 16], "group": name}
        )
    (folder / "rows.json").write_text(json.dumps(rows))
    columns = {"messages": "conversations", "videos": "videos", "system": "system"}
    entry = {"file_name": "rows.json", "formatting": "sharegpt", "columns": columns}
    (folder / "dataset_info.json").write_text(json.dumps({"clips": entry}))
    settings = {
        "model_name_or_path": str(folder / "base"), "dataset": "clips", "dataset_dir": str(folder),
        "output_dir": str(folder / "out"), "max_steps": 3, "report_to": "none", "learning_rate": 1e-2,
        "video_fps": 4.0, "video_maxlen": 8, "video_min_pixels": 1024, "video_max_pixels": 2048,
        "evaluate_all_prompts": True, "on_near_duplicates": "ignore", "on_duplicates": "ignore",
        "compare_with_champion": False, "mlflow_tracking_uri": f"sqlite:///{folder}/mlflow.db",
    }  # fmt: skip
    return config_from_settings(settings)


def test_evaluation_predictor_and_server_agree_on_every_clip(config: RunConfig) -> None:
    steps.train(config)
    metrics = steps.evaluate(config)
    predictions = list(read_lines(steps.results_dir(config) / PREDICTIONS_FILE, Prediction))
    assert len(predictions) == 16
    files = [Path(prediction.video) for prediction in predictions]
    answers = classify_files(config.train.output_dir, [str(file) for file in files])
    for prediction, (_, answer) in zip(predictions, answers, strict=True):
        assert isinstance(answer, Answer)
        assert np.abs(np.array(answer.logits) - prediction.logits).max() <= 1e-5
    with TestClient(create_app(config.train.output_dir)) as client:
        wait_until_ready(client)
        for prediction, file in zip(predictions, files, strict=True):
            answered = client.post("/v1/predict", files={"video": file.read_bytes()}).json()
            assert np.abs(np.array(answered["logits"]) - prediction.logits).max() <= 1e-5
    check_prompts(metrics)
    check_served_prompt(config, metrics)


def check_prompts(metrics: EvaluationMetrics) -> None:
    """The mean over all questions stands beside the figure of the one that is served."""
    assert metrics.prompts is not None
    assert metrics.prompt.endswith(QUESTIONS[0])  # the most frequent one
    assert metrics.prompts.top1_accuracy[metrics.prompt] == metrics.top1_accuracy
    assert len(metrics.prompts.top1_accuracy) > 8  # with their systems
    assert metrics.prompts.mean == pytest.approx(np.mean(list(metrics.prompts.top1_accuracy.values())))


def check_served_prompt(config: RunConfig, metrics: EvaluationMetrics) -> None:
    """Another prompt is evaluated and exported alike."""
    serving = config.serving.model_copy(update={"served_prompt": "Is somebody falling?"})
    asked = config.model_copy(update={"serving": serving})
    exported = steps.export(asked)
    other = EvaluationMetrics.read(steps.results_dir(asked) / "metrics.json")
    assert other.prompt.endswith("<video>Is somebody falling? <ACTION>")
    predictions = list(read_lines(steps.results_dir(asked) / PREDICTIONS_FILE, Prediction))
    videos = [prediction.video for prediction in predictions]
    answers = [answer for _, answer in classify_files(exported.model_dir, videos)]
    for prediction, answer in zip(predictions, answers, strict=True):
        assert isinstance(answer, Answer)
        assert np.abs(np.array(answer.logits) - prediction.logits).max() <= 1e-4  # merged: rounded once more
