import re
import shutil
import subprocess
import sys

import pytest
import yaml

from ivcp.evaluation.measure import measure
from ivcp.export.model_card import model_card
from ivcp.records.calibration import CALIBRATION_FILE
from ivcp.records.evaluation import EvaluationMetrics, GateVerdict
from tests.calibrations import CALIBRATION
from tests.hub_api.writable import card_problems
from tests.models import LABELS, save_tiny_classifier
from tests.unit.evaluation.predicted import predicted_split


def measured(directory):
    return EvaluationMetrics(
        **measure(predicted_split([0, 1], [[3, 0, 0], [0, 2, 0]]), labels=LABELS, majority_label=0).model_dump(),
        split="test",
        model_dir=str(directory),
        disturbed=(),
        champion=None,
        gate=GateVerdict(passed=True, reasons=()),
        test_fingerprint="t",
        prepared_fingerprint="p",
        data_fingerprint="d",
        seconds=1.0,
    )


def metadata_of(card):
    return yaml.safe_load(card.split("---")[1])


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return save_tiny_classifier(tmp_path_factory.mktemp("card") / "model")


def test_the_hub_takes_the_card_of_a_measured_model(directory):
    card = model_card(directory, metrics=measured(directory), licence="mit", data_sets=("actions", "more"))
    found = metadata_of(card)

    assert card_problems(card) == []
    assert (found["license"], found["library_name"], found["pipeline_tag"]) == ("mit", "ivcp", "video-classification")
    (model,) = found["model-index"]
    assert {result["dataset"]["name"] for result in model["results"]} == {"actions, more"}
    assert [metric["value"] for result in model["results"] for metric in result["metrics"]] == [1.0, 1.0, 1.0]
    assert "base_model" not in found  # it is a folder
    assert str(directory.parent) not in card


def test_it_says_what_its_confidences_are(directory, tmp_path):
    calibrated = shutil.copytree(directory, tmp_path / "calibrated")
    CALIBRATION.write(calibrated / CALIBRATION_FILE)
    card, plain = (model_card(each, metrics=measured(directory), licence="mit") for each in (calibrated, directory))
    assert f"softmax(logits / {CALIBRATION.temperature:.3f}), fitted on {CALIBRATION.num_clips} clips" in card
    assert CALIBRATION.threshold_words in card
    assert "softmax" not in plain
    assert card_problems(card) == []


def test_a_model_that_was_not_measured_has_no_figures(directory):
    card = model_card(directory, metrics=None, licence="mit", repository="me/actions", is_for_transformers=True)
    found = metadata_of(card)

    assert card_problems(card) == []
    assert not found.keys() & {"model-index", "metrics", "model_name"}
    assert found["library_name"] == "transformers"
    assert "hf download me/actions --local-dir actions" in card
    assert 'pipeline("video-classification", model="actions", trust_remote_code=True)' in card


def test_the_licence_is_the_base_models(directory, caplog):
    assert metadata_of(model_card(directory, metrics=None))["license"] == "unknown"
    assert "the licence of" in caplog.text
    (directory / "README.md").write_text(
        "---\nlicense: other\nlicense_name: qwen\nlicense_link: LICENSE\n---\n# Base\n"
    )
    found = metadata_of(model_card(directory, metrics=None))  # the directory is its own base model here
    assert [found[key] for key in ("license", "license_name", "license_link")] == ["other", "qwen", "LICENSE"]
    (directory / "README.md").unlink()


def test_the_lines_that_load_the_model_work_here_as_they_stand(tmp_path):
    """Beside a torch without torchvision's operators, which `make demo` may install, transformers alone does not."""
    directory = save_tiny_classifier(tmp_path / "model")
    metrics = measured(directory)
    card = model_card(directory, metrics=metrics)
    predicts, loads = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)

    assert predicts == 'import ivcp\n\nivcp.load("model").predict("VIDEO.mp4")\n'
    ended = subprocess.run(
        [sys.executable, "-c", loads], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr
