import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ivcp.data.prepared.sample import Sample
from ivcp.data.seen_clips import SEEN_CLIPS_FILE, SeenClips
from ivcp.evaluation.evaluate import SplitEvaluation
from ivcp.evaluation.gate import why_unfit
from ivcp.evaluation.unseen import SplitClips
from ivcp.inference.finite import NonFiniteError
from ivcp.records import Labels, Prediction, PreparedIndex, TableInfo, read_lines
from ivcp.records.comparison import LeftOut
from ivcp.records.evaluation import EvaluationMetrics
from ivcp.settings import RunConfig, from_flat
from ivcp.stages.directory import load_directory
from ivcp.stages.loaded_model import LoadedModel
from ivcp.tracking import register_model
from ivcp.tracking.client import connect, tracking_uri
from tests.models import LABELS, PROMPT, save_tiny_classifier
from tests.prepared import identities_of
from tests.samples import sample_of
from tests.unit.evaluation.predicted import failed_clip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_directory(save_tiny_classifier(tmp_path_factory.mktemp("models") / "new"))


@pytest.fixture(scope="module")
def champion_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_classifier(tmp_path_factory.mktemp("models") / "champion", seed=1)


@pytest.fixture(scope="module")
def clips(model: LoadedModel) -> list[Sample]:
    return [_clip(model, number) for number in range(9)]


@pytest.fixture(scope="module")
def index(model: LoadedModel) -> PreparedIndex:
    return PreparedIndex(
        fingerprint="prepared",
        root_uri="",
        shards=(),
        table=TableInfo(file="clips.arrow", num_bytes=0, sha256=""),
        labels=LABELS,
        video=model.config.video,
        stage="action_cls",
        special_tokens=("<ACTION>",),
        prompts=(PROMPT,),
        num_clips={"train": 30, "test": 9},
        label_counts={"train": (5, 20, 5), "test": (3, 3, 3)},
        failed=(failed_clip("d:99", 1), failed_clip("d:98", 0).model_copy(update={"split": "train"})),
        max_tokens=40,
        mean_tokens=40.0,
        data_fingerprint="data",
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One store for the module, since creating its tables takes seconds: tests register under names of their own."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID"):
            patch.delenv(name, raising=False)
        yield tmp_path_factory.mktemp("store")


def _clip(model: LoadedModel, number: int) -> Sample:
    frames = np.random.default_rng(number).integers(0, 255, (4, 32, 32, 3), dtype=np.uint8)
    return sample_of(
        model.processor,
        frames,
        label=number % 3,
        sample_id=f"d:{number}",
        source=f"/gone/{number}.mp4",
        messages=PROMPT,
    )


def _evaluation(model, index, clips, *, name: str = "nobody", **settings) -> SplitEvaluation:
    config = from_flat({"per_device_eval_batch_size": 4, "registered_model_name": name, "baselines": [], **settings})
    failed = tuple(clip for clip in index.failed if clip.split == "test")
    split = SplitClips(clips, identities_of(clip.sample_id for clip in clips), failed)
    return SplitEvaluation(config, model=model, index=index, unseen=split.unseen_by(model.seen), split="test")


def _champion(name: str, champion_dir: Path, store: Path, *, top1_accuracy: float, test_fingerprint: str) -> None:
    register_model(
        champion_dir,
        config=from_flat({"registered_model_name": name}),
        metrics={"top1_accuracy": top1_accuracy},
        run_id=None,
        tags={"test_fingerprint": test_fingerprint},
        default_store=store,
    )


def test_all_files_are_written_and_agree(model, index, clips, store, tmp_path):
    evaluation = _evaluation(model, index, clips, disturb_frames="reversed,shuffled,middle")
    predicted = evaluation.predict()
    metrics = evaluation.metrics(predicted, default_store=store)
    evaluation.write(tmp_path, metrics=metrics, predicted=predicted)
    assert EvaluationMetrics.read(tmp_path / "metrics.json") == metrics
    rows = read_lines(tmp_path / "predictions.jsonl", Prediction)
    assert [row.clip_id for row in rows] == [*(f"d:{number}" for number in range(9)), "d:99"]
    assert rows[0].logits == pytest.approx(model.outputs(clips[:1])[0].tolist(), abs=1e-5)
    right = sum(row.prediction == row.label for row in rows)
    assert metrics.top1_accuracy == pytest.approx(right / 10)
    assert (metrics.num_clips, metrics.num_failed) == (10, 1)
    assert metrics.majority_baseline == pytest.approx(4 / 10)
    assert [row.kind for row in metrics.disturbed] == ["none", "reversed", "shuffled", "middle"]
    assert {"top1_accuracy", "reversed_predicted_partner", "shuffled_right_within_pair"} <= set(metrics.headline())
    assert metrics.champion is None
    assert metrics.gate.passed
    for name in ("report.html", "confusion_matrix.png", "per_class.csv"):
        assert (tmp_path / name).stat().st_size > 100
    assert not (tmp_path / "smoke_clip.json").exists()  # no video is left to send
    assert json.loads((tmp_path / "metrics.json").read_text())["views"] == 1


def test_a_champion_measured_on_the_same_split_is_compared_by_its_record(model, index, clips, champion_dir, store):
    evaluation = _evaluation(model, index, clips, name="same")
    predicted = evaluation.predict()
    fingerprint = evaluation.metrics(predicted, default_store=store).test_fingerprint
    _champion("same", champion_dir, store, top1_accuracy=1.0, test_fingerprint=fingerprint)
    metrics = evaluation.metrics(predicted, default_store=store)
    assert metrics.champion is not None
    assert metrics.champion.how == "recorded"
    assert not metrics.gate.passed
    alone = _evaluation(model, index, clips, name="same", compare_with_champion=False)
    ignored = alone.metrics(predicted, default_store=store)
    assert ignored.champion is None
    assert ignored.gate.passed


def test_a_champion_measured_on_another_split_is_measured_again(model, index, clips, champion_dir, store):
    evaluation = _evaluation(model, index, clips, name="other")
    _champion("other", champion_dir, store, top1_accuracy=1.0, test_fingerprint="another")
    metrics = evaluation.metrics(evaluation.predict(), default_store=store)
    own = _evaluation(load_directory(champion_dir), index, clips, compare_with_champion=False)
    assert metrics.champion is not None
    assert metrics.champion.how == "evaluated"
    assert metrics.champion.top1_accuracy == own.metrics(own.predict()).top1_accuracy


def _diverged(directory: Path) -> Path:
    """A classifier whose decoder is NaN."""
    save_tiny_classifier(directory, seed=1)
    file = directory / "action_decoder.safetensors"
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    save_file({name: value * math.nan for name, value in load_file(file).items()}, file, metadata=metadata)
    return directory


def test_a_model_that_diverged_is_not_measured(index, clips, tmp_path):
    evaluation = _evaluation(load_directory(_diverged(tmp_path / "nan")), index, clips)
    with pytest.raises(NonFiniteError, match="nan: the outputs of 9 of 9 clips are not finite"):
        evaluation.predict()


def test_a_champion_whose_record_is_nan_is_measured_again(model, index, clips, champion_dir, store):
    evaluation = _evaluation(model, index, clips, name="nan-record", champion_tolerance=1.0)
    predicted = evaluation.predict()
    fingerprint = evaluation.metrics(predicted, default_store=store).test_fingerprint
    _champion("nan-record", champion_dir, store, top1_accuracy=1.0, test_fingerprint=fingerprint)
    client = connect(tracking_uri(evaluation.config, default_store=store))
    client.set_model_version_tag("nan-record", "1", "top1_accuracy", "nan")
    metrics = evaluation.metrics(predicted, default_store=store)
    assert metrics.champion is not None
    assert metrics.champion.how == "evaluated"
    assert metrics.gate.passed


def test_a_champion_that_diverged_does_not_decide(model, index, clips, store, tmp_path):
    _champion("nan", _diverged(tmp_path / "champion"), store, top1_accuracy=1.0, test_fingerprint="another")
    evaluation = _evaluation(model, index, clips, name="nan")
    metrics = evaluation.metrics(evaluation.predict(), default_store=store)
    assert metrics.champion is not None
    assert metrics.champion.how == "not_comparable"
    assert "outputs of 9 of 9 clips are not finite" in metrics.champion.detail
    assert metrics.gate.passed


def _seen(trained=(), selected=(), **known) -> SeenClips:
    return SeenClips(*(identities_of(f"d:{number}" for number in numbers) for numbers in (trained, selected)), **known)


def test_a_champion_is_compared_on_the_clips_that_neither_has_seen(model, index, clips, store, tmp_path):
    """It would have been measured on clips that it had learned by heart."""
    champion_dir = save_tiny_classifier(tmp_path / "champion", seed=1, seen=_seen(range(3), range(3, 5)))
    _champion("seen", champion_dir, store, top1_accuracy=1.0, test_fingerprint="another")
    evaluation = _evaluation(model, index, clips, name="seen", champion_tolerance=1.0)
    metrics = evaluation.metrics(evaluation.predict(), default_store=store)
    rest = clips[5:]
    right = sum(int(own.argmax()) == clip.columns["label"] for own, clip in zip(model.outputs(rest), rest, strict=True))
    theirs = load_directory(champion_dir).outputs(rest)
    right_theirs = sum(int(row.argmax()) == clip.columns["label"] for row, clip in zip(theirs, rest, strict=True))
    compared = metrics.champion
    assert compared is not None
    assert (compared.how, compared.num_clips) == ("evaluated", 5)  # four clips, and one that failed
    assert compared.left_out == LeftOut(trained_on=3, selected_on=2, of=10)
    assert compared.new_top1_accuracy == pytest.approx(right / 5)
    assert compared.top1_accuracy == pytest.approx(right_theirs / 5)
    assert "left out are 5 of the 10 clips (trained on 3, selected on 2) that the champion" in metrics.gate.reasons[1]
    assert metrics.num_clips == 10


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (_seen(range(9)), "it has seen all clips of the test split"),
        (_seen(is_complete=False), "it is not known what it has seen"),
    ],
)
def test_a_champion_that_may_remember_the_clips_decides_nothing(model, index, clips, store, tmp_path, seen, reason):
    without_failed = index.model_copy(update={"failed": ()})
    champion_dir = save_tiny_classifier(tmp_path / "champion", seed=1, seen=seen)
    _champion(reason, champion_dir, store, top1_accuracy=1.0, test_fingerprint="another")
    evaluation = _evaluation(model, without_failed, clips, name=reason)
    metrics = evaluation.metrics(evaluation.predict(), default_store=store)
    assert metrics.champion is not None
    assert metrics.champion.how == "not_comparable"
    assert reason in metrics.gate.reasons[1]
    assert metrics.gate.passed


def test_clips_that_the_model_has_seen_are_in_no_number(model, index, clips, store, tmp_path):
    seen = load_directory(save_tiny_classifier(tmp_path / "seen", seen=_seen([0, 1], [2])))
    evaluation = _evaluation(seen, index, clips, compare_with_champion=False, disturb_frames="reversed")
    predicted = evaluation.predict()
    metrics = evaluation.metrics(predicted, default_store=store)
    evaluation.write(tmp_path, metrics=metrics, predicted=predicted)
    assert predicted.clip_ids == tuple(f"d:{number}" for number in range(3, 9))
    assert (metrics.num_clips, metrics.left_out) == (7, LeftOut(trained_on=2, selected_on=1, of=10))
    assert metrics.headline()["num_left_out"] == 3
    assert metrics.disturbed[1].num_clips == 6
    said = "7 clips of the test split, without 3 of the 10 clips (trained on 2, selected on 1) that the model has seen"
    assert metrics.measured_on == said
    assert said in (tmp_path / "report.html").read_text()
    whole = _evaluation(model, index, clips, compare_with_champion=False)
    assert metrics.test_fingerprint != whole.metrics(whole.predict()).test_fingerprint


def test_a_model_of_which_it_is_not_known_what_it_has_seen_is_refused_by_the_gate(model, index, clips, store, tmp_path):
    directory = save_tiny_classifier(tmp_path / "old")
    (directory / SEEN_CLIPS_FILE).unlink()
    evaluation = _evaluation(load_directory(directory), index, clips, name="old")
    metrics = evaluation.metrics(evaluation.predict(), default_store=store)
    assert not metrics.gate.passed
    assert "it is not known what the model has seen (seen_clips.arrow is missing" in metrics.gate.reasons[1]
    assert metrics.measured_on.endswith("; it is not known what the model has seen")
    known = _evaluation(model, index, clips, name="old")
    assert known.metrics(known.predict(), default_store=store).test_fingerprint != metrics.test_fingerprint


@pytest.mark.parametrize("reason", ["it cannot be loaded", "its labels"])
def test_a_champion_that_cannot_be_compared_does_not_decide(model, index, clips, store, tmp_path, reason):
    champion_dir = tmp_path / "champion"
    if reason == "its labels":
        save_tiny_classifier(champion_dir, labels=Labels(label_names=("a", "b")))
    _champion(reason, champion_dir, store, top1_accuracy=1.0, test_fingerprint="another")
    evaluation = _evaluation(model, index, clips, name=reason)
    metrics = evaluation.metrics(evaluation.predict(), default_store=store)
    assert metrics.champion is not None
    assert metrics.champion.how == "not_comparable"
    assert reason in metrics.gate.reasons[1]
    assert metrics.gate.passed


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"labels": Labels(label_names=("a", "b", "c"))}, "its labels"),
        ({"special_tokens": ("<ACT>",)}, "its special tokens (<ACTION>)"),
        ({"video": RunConfig().video}, "its video settings"),
    ],
)
def test_a_model_for_other_clips_is_refused(model, index, change, reason):
    assert why_unfit(model, index) is None
    assert reason in (why_unfit(model, index.model_copy(update=change)) or "")
