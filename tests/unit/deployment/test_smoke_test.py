from pathlib import Path

import pytest

from ivcp.deployment.smoke_test import DeploymentError, check_answer, choose_smoke_clip
from ivcp.records.evaluation import SmokeClip
from ivcp.serving.predictor import Answer, ClassScore, ModelIdentity
from ivcp.settings import from_flat, save_config

EXPECTED = SmokeClip(clip_id="d:0", video="a.mp4", prediction=1, predicted_name="wave", logits=(0.0, 2.0))


def _answer(*logits: float) -> Answer:
    label = max(range(len(logits)), key=logits.__getitem__)
    return Answer(
        label=label,
        label_name=("sit", "wave", "jump")[label],
        confidence=0.9,
        top=(ClassScore(label=label, label_name="wave", confidence=0.9),),
        logits=logits,
        model=ModelIdentity(name="m", version=None, trained_steps=1, data_fingerprint="d"),
        frames=4,
        backend="pyav",
        seconds=0.1,
    )


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    save_config(from_flat({}), tmp_path / "run_config.json")
    return tmp_path


def test_the_same_answer_passes_with_its_difference(model_dir: Path):
    assert check_answer(_answer(0.0005, 2.0), EXPECTED, model_dir=model_dir).max_logit_difference == pytest.approx(
        0.0005
    )


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        ((2.0, 0.0), "answers sit of 2 classes, evaluation predicted wave of 2"),
        ((0.0, 2.0, 1.0), "of 3 classes"),
        ((0.01, 2.0), "differ from evaluation's by 0.01"),
    ],
)
def test_another_answer_is_refused(logits: tuple[float, ...], message: str, model_dir: Path):
    with pytest.raises(DeploymentError, match=message):
        check_answer(_answer(*logits), EXPECTED, model_dir=model_dir)


def test_a_rounded_model_must_give_the_same_class(tmp_path: Path):
    save_config(from_flat({"bf16": True}), tmp_path / "run_config.json")
    assert check_answer(_answer(0.02, 2.0), EXPECTED, model_dir=tmp_path).max_logit_difference == pytest.approx(0.02)


def test_the_smoke_clip_is_evaluations_choice(tmp_path: Path):
    assert choose_smoke_clip(tmp_path) is None
    EXPECTED.write(tmp_path / "smoke_clip.json")
    assert choose_smoke_clip(tmp_path) == EXPECTED
