import shutil
from pathlib import Path

import pytest

from ivcp import tracking
from ivcp.evaluation.evaluate import evaluate_adapter
from ivcp.models.backbone_files import ModelFilesError
from ivcp.records import Labels, PreparedIndex
from ivcp.settings import RunConfig
from ivcp.stages.directory import load_directory
from ivcp.stages.model_info import MODEL_INFO_FILE, ModelInfo
from ivcp.tracking import client
from tests.models import save_tiny_classifier
from tests.prepared import prepare_video, write_index
from tests.videos import write_video


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_classifier(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def index(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> PreparedIndex:
    folder, processor = tmp_path_factory.mktemp("clips"), load_directory(model_dir).processor
    videos = [write_video(folder / f"{seed}.mp4", seed=seed) for seed in range(6)]
    clips = [prepare_video(video, number % 3, processor=processor) for number, video in enumerate(videos)]
    return write_index(folder, clips, video=processor.video)


@pytest.fixture(autouse=True)
def _no_store_of_the_environment(monkeypatch: pytest.MonkeyPatch):
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID"):
        monkeypatch.delenv(name, raising=False)


def test_the_pipelines_run_receives_numbers_and_reports(
    model_dir: Path, index: PreparedIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config, store = RunConfig(), tmp_path / "runs"
    run_id = tracking.start_pipeline_run(config, default_store=store)
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    first = evaluate_adapter(
        config, adapter_dir=model_dir, index=index, output_dir=tmp_path / "results", default_store=store
    )
    run = client.connect(tracking.tracking_uri(config, default_store=store)).get_run(run_id)
    assert run.info.status == "RUNNING"
    assert run.data.metrics["test/top1_accuracy"] == first.top1_accuracy
    assert run.data.tags["gate"] == "passed"
    assert run.data.tags["test_fingerprint"] == first.test_fingerprint
    artifacts = Path(run.info.artifact_uri.removeprefix("file://"))
    stored = {path.name for path in (artifacts / "evaluation").iterdir()}
    assert {"report.html", "report.md", "report.json", "predictions.jsonl"} <= stored
    assert run.inputs.dataset_inputs[0].dataset.digest == index.fingerprint
    assert "### Evaluation" in run.data.tags["mlflow.note.content"]
    assert (tmp_path / "results" / "smoke_clip.json").is_file()
    tracking.register_model(
        model_dir,
        config=config,
        metrics=first.headline(),
        run_id=run_id,
        tags=first.fingerprints(),
        default_store=store,
    )
    second = evaluate_adapter(
        config, adapter_dir=model_dir, index=index, output_dir=tmp_path / "again", default_store=store
    )
    assert second.champion is not None
    assert second.champion.how == "recorded"
    assert second.champion.top1_accuracy == second.top1_accuracy
    flips = second.champion.flips  # by the answers that the first one's run keeps
    assert flips is not None
    assert (flips.num_clips, flips.num_gained, flips.num_lost, flips.p_value) == (6, 0, 0, 1.0)
    assert second.gate.passed


def test_clips_of_other_labels_are_refused(model_dir: Path, index: PreparedIndex, tmp_path: Path):
    other = index.model_copy(update={"labels": Labels(label_names=("a", "b", "c"))})
    with pytest.raises(ValueError, match="its labels"):
        evaluate_adapter(RunConfig(), adapter_dir=model_dir, index=other, output_dir=tmp_path)


def test_a_directory_without_decoder_is_refused(model_dir: Path, index: PreparedIndex, tmp_path: Path):
    incomplete = tmp_path / "incomplete"
    shutil.copytree(model_dir, incomplete)
    (incomplete / "action_decoder.safetensors").unlink()
    with pytest.raises(ModelFilesError, match=r"action_decoder\.safetensors missing"):
        evaluate_adapter(RunConfig(), adapter_dir=incomplete, index=index, output_dir=tmp_path / "out")


def test_an_untrained_decoder_is_refused(model_dir: Path, index: PreparedIndex, tmp_path: Path):
    untrained = tmp_path / "untrained"
    shutil.copytree(model_dir, untrained)
    info = ModelInfo.read(untrained / MODEL_INFO_FILE)
    info.model_copy(update={"trained_steps": 0}).write(untrained / MODEL_INFO_FILE)
    with pytest.raises(ModelFilesError, match="never trained"):
        evaluate_adapter(RunConfig(), adapter_dir=untrained, index=index, output_dir=tmp_path / "out")
