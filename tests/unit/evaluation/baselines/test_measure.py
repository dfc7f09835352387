"""All baselines on prepared clips: those of a class differ from others by their brightness."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ivcp.evaluation.baselines import measure
from ivcp.evaluation.evaluate import SplitEvaluation
from ivcp.evaluation.unseen import SplitClips
from ivcp.records import PreparedIndex
from ivcp.records.baselines import Baseline
from ivcp.records.evaluation import EvaluationMetrics
from ivcp.settings import from_flat
from ivcp.stages.directory import load_directory
from ivcp.stages.loaded_model import LoadedModel
from tests.models import LABELS, PROMPT, save_tiny_adapter
from tests.prepared import write_shards
from tests.samples import sample_of

NUM_TRAIN, NUM_TEST = 36, 12


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder = tmp_path_factory.mktemp("adapter")
    return load_directory(save_tiny_adapter(folder / "adapter", base=folder / "base"))


@pytest.fixture(scope="module")
def index(model: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> PreparedIndex:
    def clip(number: int):
        random = np.random.default_rng(number)
        frames = random.integers(0, 60, (4, 32, 32, 3)) + 90 * (number % 3)
        return sample_of(
            model.processor,
            frames.astype(np.uint8),
            label=number % 3,
            sample_id=f"d:{number}",
            source=f"/gone/{number}.mp4",
            messages=PROMPT,
        )

    rows = [("train" if number < NUM_TRAIN else "test", clip(number)) for number in range(NUM_TRAIN + NUM_TEST)]
    return PreparedIndex(
        fingerprint="prepared",
        **write_shards(tmp_path_factory.mktemp("clips"), rows),
        labels=LABELS,
        video=model.config.video,
        stage="action_cls",
        special_tokens=("<ACTION>",),
        prompts=(PROMPT,),
        num_clips={"train": NUM_TRAIN, "test": NUM_TEST},
        label_counts={"train": (12, 12, 12), "test": (4, 4, 4)},
        failed=(),
        max_tokens=40,
        mean_tokens=40.0,
        data_fingerprint="data",
    )


def _measured(model: LoadedModel, index: PreparedIndex, **settings: Any) -> EvaluationMetrics:
    settings = {"per_device_eval_batch_size": 5, "compare_with_champion": False, **settings}
    evaluation = SplitEvaluation(
        from_flat(settings), model=model, index=index, unseen=SplitClips.of(index, "test").unseen_by(model.seen),
        split="test",
    )  # fmt: skip
    return evaluation.metrics(evaluation.predict())


def _by_kind(metrics: EvaluationMetrics) -> dict[str, Baseline]:
    return {baseline.kind: baseline for baseline in metrics.baselines}


def test_all_stand_beside_a_classifier(model: LoadedModel, index: PreparedIndex):
    metrics = _measured(model, index, disturb_frames=["middle"])
    found = _by_kind(metrics)
    assert list(found) == ["majority", "middle", "shuffled", "linear_probe_8", "linear_probe", "zero_shot"]
    assert found["majority"].top1_accuracy == pytest.approx(1 / 3)
    (_, middle) = metrics.disturbed
    assert found["middle"].top1_accuracy == pytest.approx(middle.top1_accuracy)
    assert found["linear_probe"].top1_accuracy == 1.0  # brightness: any model shows that
    assert found["linear_probe_8"].top1_accuracy == pytest.approx(1.0, abs=0.1)
    assert "36 training clips" in found["linear_probe"].detail
    assert found["linear_probe_8"].spread is not None
    for baseline in found.values():
        assert baseline.num_clips == NUM_TEST
        assert baseline.gain == pytest.approx(metrics.top1_accuracy - baseline.top1_accuracy)
    assert metrics.intervals.num_groups == NUM_TEST
    interval = metrics.intervals.top1_accuracy
    assert interval is not None
    assert interval.low <= metrics.top1_accuracy <= interval.high < 1
    headline = metrics.headline()
    assert headline["baseline_linear_probe_top1_accuracy"] == 1.0
    assert headline["gain_over_linear_probe"] == pytest.approx(metrics.top1_accuracy - 1.0)


def test_large_splits_are_drawn_from(model: LoadedModel, index: PreparedIndex, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(measure, "MOST_CLIPS", 7)
    monkeypatch.setattr(measure, "MOST_TRAINING_CLIPS", 20)
    found = _by_kind(_measured(model, index, baselines=["majority", "linear_probe"]))
    assert found["majority"].num_clips == found["linear_probe"].num_clips == 7
    assert "20 training clips" in found["linear_probe"].detail


def test_the_gate_can_ask_for_more_than_the_base_model_shows(model: LoadedModel, index: PreparedIndex):
    verdict = _measured(model, index, min_gain_over_baselines=0.05).gate
    assert not verdict.passed
    assert any(
        "worse by" in reason and "linear probe on the base model, all clips" in reason for reason in verdict.reasons
    )
    assert not any("middle frame" in reason for reason in verdict.reasons)  # that is the model itself
    assert _measured(model, index, min_gain_over_baselines=-1.0).gate.passed
    nothing = _measured(model, index, min_gain_over_baselines=0.05, baselines=["middle"]).gate
    assert not nothing.passed
    assert any("no baseline was measured" in reason for reason in nothing.reasons)


def test_what_cannot_be_measured_says_why(model: LoadedModel, index: PreparedIndex):
    without_train = index.model_copy(
        update={"num_clips": {"test": NUM_TEST}, "shards": tuple(s for s in index.shards if s.split == "test")}
    )
    found = _by_kind(_measured(model, without_train, baselines=["linear_probe", "zero_shot"]))
    assert found["linear_probe"].top1_accuracy is None
    assert "no training clips" in found["linear_probe"].detail
    assert found["zero_shot"].top1_accuracy is not None
    found = _by_kind(_measured(model, index, baselines=["linear_probe", "zero_shot"], probe_layers=[99]))
    assert all("probe_layers: 99" in baseline.detail for baseline in found.values())
    assert _measured(model, index, baselines=[]).baselines == ()


def test_people_see_them(model: LoadedModel, index: PreparedIndex, tmp_path: Path):
    evaluation = SplitEvaluation(
        from_flat({"compare_with_champion": False}), model=model, index=index,
        unseen=SplitClips.of(index, "test").unseen_by(model.seen), split="test",
    )  # fmt: skip
    predicted = evaluation.predict()
    metrics = evaluation.metrics(predicted)
    evaluation.write(tmp_path, metrics=metrics, predicted=predicted)
    assert EvaluationMetrics.read(tmp_path / "metrics.json") == metrics
    report = (tmp_path / "report.html").read_text()
    top1 = metrics.intervals.top1_accuracy
    assert top1 is not None
    assert top1.words in report
    for baseline in metrics.baselines:
        assert baseline.words in report
        assert baseline.detail in report
