"""In which order the trainings of a series run, and what becomes of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ivcp.evaluation.series.measure import measure_series
from ivcp.pipeline_runs.local import PipelineFailedError
from ivcp.pipeline_runs.series import run
from ivcp.pipeline_runs.series.members import members_of
from ivcp.pipeline_runs.series.run import Series
from ivcp.pipeline_runs.summary import RunSummary
from ivcp.records import Labels, Prediction, write_lines
from ivcp.records.evaluation import EvaluationMetrics, GateVerdict
from ivcp.records.predictions import ClipFacts
from ivcp.settings import ConfigError, RunConfig, from_flat
from ivcp.training.result import TrainingResult

LABELS = Labels(label_names=("run", "sit"))
RIGHT = {"fold-1": 4, "fold-2": 2, "seed-7": 2, "seed-8": 4, "seed-9": 3, "first": 4, "second": 1}
"""Right answers of each training, of 4 clips."""
VALIDATION = {"seed-7": 0.5, "seed-8": 0.6, "seed-9": 0.9}


def settings(**changed: Any) -> RunConfig:
    return from_flat({"model_name_or_path": "base", "dataset": ["d"], "run_name": "mine", "seed": 7, **changed})


def write_run(folder: Path, name: str) -> None:
    """What the steps of a training leave: four clips, of which the first ones are right."""
    for part in ("evaluation", "adapter", "validation"):
        (folder / part).mkdir(parents=True)
    LABELS.write(folder / "validation" / "labels.json")
    first = 4 if name in ("fold-2", "second") else 0
    rows = []
    for number in range(4):
        label = number % 2
        guess = label if number < RIGHT[name] else 1 - label
        rows.append(
            Prediction(
                clip_id=f"d:{first + number}",
                video=f"{first + number}.mp4",
                label=label,
                prediction=guess,
                label_name=LABELS.label_names[label],
                predicted_name=LABELS.label_names[guess],
                confidence=0.9,
                logits=tuple(np.eye(2)[guess].tolist()),
                facts=ClipFacts(dataset="d", group=f"{first + number // 2 + 1:016x}", seconds=3.0, backend="pyav"),
            )
        )
    write_lines(folder / "evaluation" / "predictions.jsonl", rows)
    share = RIGHT[name] / 4
    EvaluationMetrics.model_construct(
        num_clips=4, num_failed=0, min_frames=4, max_frames=4, views=1, top1_accuracy=share, top5_accuracy=1.0,
        mean_class_accuracy=share, majority_baseline=0.5, loss=1.0, reversed_pairs_accuracy=None,
        num_reversed_pair_clips=0, classes=(), confusion_matrix=(), split="test", model_dir="m", test_fingerprint="t",
        gate=GateVerdict(passed=True, reasons=()), prepared_fingerprint="p", data_fingerprint="d", seconds=1.0,
        disturbed=(), champion=None,
    ).write(folder / "evaluation" / "metrics.json")  # fmt: skip
    TrainingResult(
        steps=1, epochs=1.0, train_clips=4, val_clips=0, train_loss=1.0, val_top1_accuracy=VALIDATION.get(name),
        seconds=1.0,
    ).write(folder / "adapter" / "training_result.json")  # fmt: skip


@dataclass
class Runs:
    """In place of `run_locally`: what it was called with; each run leaves what its steps would."""

    folder: Path
    ends: dict[int, str] = field(default_factory=dict)
    """Number of a call → the status that it comes to."""
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def __call__(self, config: RunConfig, **options: Any) -> RunSummary:
        name = str(config.train.run_name).removeprefix("mine-")
        number = len(self.calls)
        self.calls.append((name, options))
        folder = self.folder / f"{number}-{name}"
        status = self.ends.get(number, "measured" if options["measures_only"] else "succeeded")
        summary = RunSummary.model_construct(
            status=status, log=str(folder / "pipeline.log"), mlflow_run_id="run", error="", top1_accuracy=0.5,
            seconds=1.0, steps={}, results={}, clips={}, metrics=None, mean_class_accuracy=None, model_dir=None,
            validation_report=None, evaluation_report=None, adapter_dir=None, mlflow_tracking_uri="",
        )  # fmt: skip
        if status == "failed":
            raise PipelineFailedError("training failed: no memory", summary)
        if status == "measured":
            write_run(folder, name)
            summary.write(folder / "summary.json")
        return summary

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.calls]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runs]:
    recorded = Runs(tmp_path / "runs")
    monkeypatch.setattr(run, "run_locally", recorded)
    return recorded


def test_folds_are_measured_together_and_none_is_exported(runs: Runs):
    from mlflow import MlflowClient

    outcome = Series(settings(folds=2, val_size=0.1), runs.folder).run()
    assert runs.names == ["fold-1", "fold-2"]
    assert [options["measures_only"] for _, options in runs.calls] == [True, True]
    assert [options["validated_by"] for _, options in runs.calls] == [None, runs.folder / "0-fold-1"]
    result = outcome.result
    assert result is not None
    assert outcome.folder is not None
    assert (result.top1_accuracy, result.num_clips, result.num_groups) == (6 / 8, 8, 4)
    assert (result.top1_mean, result.top1_spread) == (0.75, pytest.approx(np.std([1.0, 0.5], ddof=1)))
    assert result.top1_interval is not None
    assert result.top1_interval.low < 0.75 < result.top1_interval.high
    assert sum(row.num_clips for row in result.slices if row.kind == "duration") == 8
    assert result.chosen == ""
    assert json.loads((outcome.folder / "series.json").read_text())["top1_accuracy"] == 0.75
    page = (outcome.folder / "report.html").read_text()
    assert "75.0 %" in page
    assert "fold-2" in page
    (parent,) = {options["tags"]["mlflow.parentRunId"] for _, options in runs.calls}
    tracked = MlflowClient(tracking_uri=f"sqlite:///{runs.folder / 'mlflow.db'}").get_run(parent)
    assert (tracked.info.status, tracked.info.run_name) == ("FINISHED", "2 folds of mine")
    assert tracked.data.metrics["test/top1_accuracy"] == 0.75
    assert tracked.data.metrics["test/top1_accuracy_low"] == pytest.approx(result.top1_interval.low)


def test_the_seed_that_is_best_on_validation_goes_on(runs: Runs):
    outcome = Series(settings(seeds=3, test_size=0.2, val_size=0.2), runs.folder).run()
    assert runs.names == ["seed-7", "seed-8", "seed-9", "seed-9"], (
        "seed-8 is best on the test split, which chooses none"
    )
    assert runs.calls[-1][1]["measures_only"] is False
    assert all(options["deploy"] for _, options in runs.calls), "so that the last call goes on with the run"
    result = outcome.result
    assert result is not None
    assert (result.chosen, result.num_clips, result.num_groups) == ("seed-9", 4, 2)
    assert result.top1_accuracy == pytest.approx(np.mean([2, 4, 3]) / 4)
    assert result.top1_interval is not None
    assert result.top1_interval.low <= 0.75 <= result.top1_interval.high
    assert outcome.last.status == "succeeded"


def test_official_splits_count_alike(runs: Runs, tmp_path: Path):
    (tmp_path / "dataset_info.json").write_text(json.dumps({"first": {}, "second_train": {}, "second_test": {}}))
    config = settings(dataset=[], official_splits=["first", "second"], dataset_dir=str(tmp_path))
    first, second = (member.config.data for member in members_of(config))
    assert (first.dataset, first.test_dataset) == (("first",), ())
    assert (second.dataset, second.test_dataset, second.eval_dataset) == (("second_train",), ("second_test",), ())
    assert first.splits_file != second.splits_file, "a group that one trains on is tested by the other"
    with pytest.raises(ConfigError, match="has neither third, nor third_train and third_test"):
        members_of(settings(dataset=[], official_splits=["first", "third"], dataset_dir=str(tmp_path)))
    result = Series(config, runs.folder).run().result
    assert result is not None
    assert (result.top1_accuracy, result.top1_spread) == (0.625, pytest.approx(np.std([1, 0.25], ddof=1)))
    assert result.chosen == ""


@pytest.mark.parametrize("end", ["failed", "interrupted"])
def test_the_same_call_goes_on_behind_what_was_measured(runs: Runs, end: str):
    series = Series(settings(folds=2), runs.folder)
    runs.ends[1] = end
    if end == "failed":
        with pytest.raises(PipelineFailedError, match="fold-2: training failed: no memory"):
            series.run()
    else:
        outcome = series.run()
        assert (outcome.last.status, outcome.result) == ("interrupted", None)
    assert Series(settings(folds=2), runs.folder).run().result is not None
    assert runs.names == ["fold-1", "fold-2", "fold-2"], "the first fold is not trained again"
    assert len({options["tags"]["mlflow.parentRunId"] for _, options in runs.calls}) == 1
    assert Series(settings(folds=2), runs.folder).run().result is not None
    assert len(runs.calls) == 3, "all is measured"
    Series(settings(folds=2), runs.folder, fresh=True).run()
    assert runs.names[3:] == ["fold-1", "fold-2"]


def test_a_training_that_was_removed_costs_no_other(runs: Runs, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run.ParentRun, "opened", lambda *_: None)
    series = Series(settings(folds=2), runs.folder)
    series.run()
    shutil.rmtree(runs.folder / "0-fold-1" / "evaluation")
    series.run()
    series.run()
    assert runs.names == ["fold-1", "fold-2", "fold-1"]


def test_answers_of_other_classes_are_not_counted_together(tmp_path: Path):
    for name in ("first", "second"):
        write_run(tmp_path / name, name)
    Labels(label_names=("sit", "run")).write(tmp_path / "second" / "validation" / "labels.json")
    members = [(name, tmp_path / name, "") for name in ("first", "second")]
    with pytest.raises(ValueError, match="first and second have different classes \\(in another order\\)"):
        measure_series("official_splits", members, seconds=1.0)


def test_seeds_share_the_data():
    members = members_of(settings(seeds=2, test_size=0.2))
    assert [member.config.train.seed for member in members] == [7, 8]
    assert {member.config.data_seed for member in members} == {7}
    assert not any(member.config.protocol.repeats for member in members)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"stage": "sft"}, "folds measures classifiers, and stage = sft has no classes"),
        ({"skip_unchanged": True}, "folds and skip_unchanged exclude each other"),
        ({"fold": 2}, "fold = 2: `ivcp run` trains all folds"),
        ({"resume_from_checkpoint": "a/checkpoint-3"}, "is of one training: leave it out"),
    ],
)
def test_what_does_not_go_together(changed: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        members_of(settings(folds=2, **changed))
