"""From validation clips to a calibration that the exported model is read with."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ivcp import storage
from ivcp.data.seen_clips import SeenClips
from ivcp.evaluation.calibration import fit_temperature
from ivcp.evaluation.evaluate import evaluate_adapter
from ivcp.export.export import export_model
from ivcp.records import PREDICTIONS_FILE, REPORT_HTML, Prediction, PreparedIndex, read_lines
from ivcp.records.calibration import CALIBRATION_FILE, Calibration
from ivcp.records.evaluation import EvaluationMetrics
from ivcp.settings import from_flat
from ivcp.stages.directory import load_directory
from ivcp.tracking import client, tracking_uri
from tests.models import PROMPT, save_tiny_classifier
from tests.prepared import identities_of, write_index, write_shards
from tests.samples import sample_of

VAL_CLIPS, TEST_CLIPS = 56, 8


def _clips(processor, prefix: str, number: int):
    return [
        sample_of(
            processor,
            np.random.default_rng([len(prefix), seed]).integers(0, 255, (4, 32, 32, 3), dtype=np.uint8),
            label=seed % 3,
            sample_id=f"{prefix}:{seed}",
            source=f"/gone/{prefix}-{seed}.mp4",
            messages=PROMPT,
        )
        for seed in range(number)
    ]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_classifier(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def val_clips(model_dir):
    return _clips(load_directory(model_dir).processor, "val", VAL_CLIPS)


@pytest.fixture(scope="module")
def index(model_dir, val_clips, tmp_path_factory: pytest.TempPathFactory) -> PreparedIndex:
    folder, processor = tmp_path_factory.mktemp("clips"), load_directory(model_dir).processor
    test_clips = _clips(processor, "test", TEST_CLIPS)
    alone = write_index(folder / "test", test_clips, video=processor.video)
    both = [("test", clip) for clip in test_clips] + [("val", clip) for clip in val_clips]
    counts = {"test": TEST_CLIPS, "val": VAL_CLIPS}
    return alone.model_copy(update=write_shards(folder / "both", both) | {"num_clips": counts})


@pytest.fixture(autouse=True)
def _no_store_of_the_environment(monkeypatch: pytest.MonkeyPatch):
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID"):
        monkeypatch.delenv(name, raising=False)


def _config(tmp_path: Path, **settings):
    return from_flat(
        {
            "per_device_eval_batch_size": 16,
            "mlflow_tracking_uri": f"sqlite:///{tmp_path}/mlflow.db",
            "compare_with_champion": False,
            **settings,
        }
    )


def test_evaluation_fits_on_validation_clips_and_the_exported_model_has_it(model_dir, val_clips, index, tmp_path):
    config = _config(tmp_path, models_uri=str(tmp_path / "published"))
    before = {path.name: path.stat().st_mtime_ns for path in model_dir.iterdir()}
    metrics = evaluate_adapter(config, adapter_dir=model_dir, index=index, output_dir=tmp_path / "results")
    calibration = metrics.calibration
    assert calibration is not None
    logits = load_directory(model_dir).outputs(val_clips).numpy()
    expected = fit_temperature(logits, np.arange(VAL_CLIPS) % 3)
    assert calibration.temperature == pytest.approx(expected, rel=1e-3)
    assert (calibration.split, calibration.num_clips) == ("val", VAL_CLIPS)
    assert EvaluationMetrics.read(tmp_path / "results" / "metrics.json").calibration == calibration
    assert {path.name: path.stat().st_mtime_ns for path in model_dir.iterdir()} == before  # another step's output

    logged = client.connect(tracking_uri(config)).search_runs(["1"])[0].data.metrics
    assert logged["test/temperature"] == calibration.temperature
    assert logged["test/expected_calibration_error"] == metrics.confidence.after.expected_calibration_error

    result = export_model(config, adapter_dir=model_dir, index=index, metrics=metrics, export_dir=tmp_path / "exported")
    exported = load_directory(tmp_path / "exported")
    assert exported.calibration == calibration
    assert Calibration.read(storage.local_path(result.registered.source) / CALIBRATION_FILE) == calibration
    rows = read_lines(tmp_path / "results" / PREDICTIONS_FILE, Prediction)
    shown = torch.tensor([row.logits for row in rows])
    probabilities = exported.probabilities(shown)
    assert [row.confidence for row in rows] == pytest.approx(probabilities.max(dim=1).values.tolist(), abs=1e-9)
    assert probabilities.argmax(dim=1).tolist() == [row.prediction for row in rows]


def test_the_validation_split_is_measured_with_a_word_of_caution(model_dir, index, tmp_path):
    metrics = evaluate_adapter(
        _config(tmp_path), adapter_dir=model_dir, index=index, output_dir=tmp_path / "results", split="val"
    )
    assert metrics.calibration.before == metrics.confidence.before
    assert "of clips that it was chosen on, and therefore too good" in (tmp_path / "results" / REPORT_HTML).read_text()


@pytest.mark.parametrize(
    ("seen", "split_sizes", "reason"),
    [
        (SeenClips(), {"test": TEST_CLIPS}, "there is no validation split: set val_size or eval_dataset"),
        (
            SeenClips(trained=identities_of(f"val:{number}" for number in range(7))),
            {"test": TEST_CLIPS, "val": VAL_CLIPS},
            "the val split has 49 clips for it that could be decoded and were not trained on",
        ),
    ],
)
def test_without_enough_clips_nothing_is_calibrated_and_all_say_so(index, tmp_path, caplog, seen, split_sizes, reason):
    directory = save_tiny_classifier(tmp_path / "model", seen=seen)
    clips = index.model_copy(update={"num_clips": split_sizes})
    metrics = evaluate_adapter(_config(tmp_path), adapter_dir=directory, index=clips, output_dir=tmp_path / "results")
    assert metrics.calibration is None
    assert reason in metrics.confidence.why_not_calibrated
    assert f"confidences are not calibrated, and no answer is called unsure: {reason}" in caplog.text
    report = (tmp_path / "results" / REPORT_HTML).read_text()
    assert "Not calibrated" in report
    assert reason in report
    assert metrics.headline()["expected_calibration_error"] == metrics.confidence.before.expected_calibration_error


def test_clips_that_chose_the_checkpoint_may_choose_the_temperature(index, tmp_path):
    seen = SeenClips(selected=identities_of(f"val:{number}" for number in range(VAL_CLIPS)))
    directory = save_tiny_classifier(tmp_path / "model", seen=seen)
    metrics = evaluate_adapter(_config(tmp_path), adapter_dir=directory, index=index, output_dir=tmp_path / "results")
    assert metrics.calibration.num_clips == VAL_CLIPS


def test_a_models_own_calibration_stays_where_none_can_be_fitted(model_dir, index, tmp_path):
    fitted = evaluate_adapter(_config(tmp_path), adapter_dir=model_dir, index=index, output_dir=tmp_path / "first")
    directory = save_tiny_classifier(tmp_path / "model")
    fitted.calibration.write(directory / CALIBRATION_FILE)
    only_test = index.model_copy(update={"num_clips": {"test": TEST_CLIPS}})
    metrics = evaluate_adapter(_config(tmp_path), adapter_dir=directory, index=only_test, output_dir=tmp_path / "again")
    assert metrics.calibration == fitted.calibration
    assert metrics.confidence.after == fitted.confidence.after
    assert "by an earlier evaluation; now" in (tmp_path / "again" / REPORT_HTML).read_text()
