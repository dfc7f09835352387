"""Curricula: how their files are read, and in which order stages run, again after an interruption."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from ivcp.pipeline_runs import curriculum
from ivcp.pipeline_runs.curriculum import Curriculum, CurriculumStage, is_curriculum, read_curriculum
from ivcp.pipeline_runs.local import PipelineFailedError
from ivcp.pipeline_runs.summary import RunSummary
from ivcp.settings import ConfigError, RunConfig

FIRST = {"stage": "sft", "model_name_or_path": "models/base", "dataset": "questions"}
SECOND = {"stage": "action_cls", "model_name_or_path": "models/base", "dataset": "actions"}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a curriculum beside the two files that it may name."""
    (tmp_path / "questions.yaml").write_text(yaml.safe_dump(FIRST))
    (tmp_path / "actions.yaml").write_text(yaml.safe_dump(SECOND))

    def written(entries: Any, **common: Any) -> Path:
        path = tmp_path / "curriculum.yaml"
        path.write_text(yaml.safe_dump({"curriculum": entries, **common}))
        return path

    return written


@dataclass
class Runs:
    """In place of `run_locally`: what it was called with; each run leaves a model's folder, or what `ends` says."""

    folder: Path
    ends: dict[int, str] = field(default_factory=dict)
    """Number of a call → the status that it comes to, `raised` for an exception."""
    calls: list[tuple[RunConfig, dict[str, Any]]] = field(default_factory=list)

    def __call__(self, config: RunConfig, **options: Any) -> RunSummary:
        number = len(self.calls)
        self.calls.append((config, options))
        status = self.ends.get(number, "succeeded")
        model_dir = self.folder / f"model-{number}"
        if status == "succeeded":
            model_dir.mkdir()
        summary = RunSummary.model_construct(
            status=status, model_dir=str(model_dir) if status == "succeeded" else None, error="no memory"
        )
        if status == "failed":
            raise PipelineFailedError("training failed: no memory", summary)
        return summary

    @property
    def bases(self) -> list[str]:
        return [Path(str(config.model.model_name_or_path)).name for config, _ in self.calls]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runs]:
    recorded = Runs(tmp_path)
    monkeypatch.setattr(curriculum, "run_locally", recorded)
    return recorded


def test_files_and_settings_make_stages(write):
    path = write(["questions.yaml", {"settings": "actions.yaml", "learning_rate": 1e-4}, {**SECOND, "seed": 3}], seed=7)
    assert is_curriculum(path)
    assert not is_curriculum(path.with_name("questions.yaml"))
    first, second, third = read_curriculum(path, {"num_train_epochs": 2})
    assert [stage.name for stage in (first, second, third)] == ["1-sft", "2-action_cls", "3-action_cls"]
    assert (first.config.train.seed, second.config.train.learning_rate, third.config.train.seed) == (7, 1e-4, 3)
    assert {stage.config.train.num_train_epochs for stage in (first, second, third)} == {2}


def test_models_of_earlier_stages_are_no_versions_of_the_last_ones(write):
    stages = read_curriculum(write(["questions.yaml", "actions.yaml"], run_name="mine"))
    assert [stage.config.registered_name for stage in stages] == ["ivcp-sft", "ivcp-action-classifier"]
    assert [stage.config.train.run_name for stage in stages] == ["mine-1-sft", "mine-2-action_cls"]
    same = read_curriculum(write(["questions.yaml", "actions.yaml"], registered_model_name="mine"))
    assert [stage.config.registered_name for stage in same] == ["mine-1-sft", "mine"]


@pytest.mark.parametrize(
    ("entries", "common", "message"),
    [
        ([], {}, "expected a list of settings files"),
        ("questions.yaml", {}, "expected a list of settings files"),
        ([3], {}, "stage 1: expected the path of a settings file, or settings, got 3"),
        ([{"settings": 3}], {}, "settings = 3: expected the path"),
        (["curriculum.yaml"], {}, "is a curriculum itself"),
        (["questions.yaml", {**SECOND, "learning_rat": 1}], {}, "stage 2: unknown setting learning_rat"),
        (["questions.yaml", "actions.yaml"], {"export_dir": "out"}, "export_dir = .*out is that of several stages"),
        (["questions.yaml", {**SECOND, "adapter_name_or_path": "runs/a"}], {}, "which no earlier adapter fits"),
        (["questions.yaml", "actions.yaml"], {"skip_unchanged": True}, "1-sft: skip_unchanged"),
    ],
)
def test_what_cannot_be_a_curriculum(write, entries, common, message):
    with pytest.raises(ConfigError, match=message):
        read_curriculum(write(entries, **common))


def test_a_file_that_is_missing_is_named(write):
    with pytest.raises(FileNotFoundError, match=r"anwsers\.yaml"):
        read_curriculum(write(["anwsers.yaml"]))


def test_each_stage_starts_from_the_one_before(write, runs: Runs, tmp_path: Path):
    stages = read_curriculum(write(["questions.yaml", "questions.yaml", "actions.yaml"]))
    ended: list[CurriculumStage] = []
    Curriculum(stages, tmp_path / "runs", on_end=lambda stage, summary: ended.append(stage)).run()
    assert runs.bases == ["base", "model-0", "model-1"]
    assert [options["deploy"] for _, options in runs.calls] == [False, False, True]
    assert ended == list(stages)


def test_stages_lie_below_one_run_in_mlflow(write, runs: Runs, tmp_path: Path):
    from mlflow import MlflowClient

    Curriculum(read_curriculum(write(["questions.yaml", "actions.yaml"])), tmp_path / "runs").run()
    (parent,) = {options["tags"]["mlflow.parentRunId"] for _, options in runs.calls}
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}")
    run = client.get_run(parent)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "curriculum of 1-sft, 2-action_cls")


@pytest.mark.parametrize("end", ["failed", "refused", "interrupted"])
def test_the_same_call_goes_on_behind_what_is_done(write, runs: Runs, tmp_path: Path, end: str):
    stages = read_curriculum(write(["questions.yaml", "questions.yaml", "actions.yaml"]))
    runs.ends[1] = end
    if end == "failed":
        with pytest.raises(PipelineFailedError, match="stage 2-sft: training failed: no memory"):
            Curriculum(stages, tmp_path / "runs").run()
    else:
        assert Curriculum(stages, tmp_path / "runs").run().status == end
    assert runs.bases == ["base", "model-0"]
    Curriculum(stages, tmp_path / "runs").run()
    assert runs.bases == ["base", "model-0", "model-0", "model-2"], "the first stage is not run again"
    parents = {options["tags"]["mlflow.parentRunId"] for _, options in runs.calls}
    assert len(parents) == 1
    Curriculum(stages, tmp_path / "runs").run()
    assert runs.bases[4:] == ["base", "model-4", "model-5"], "it had come to its end"


def test_fresh_starts_anew(write, runs: Runs, tmp_path: Path):
    stages = read_curriculum(write(["questions.yaml", "actions.yaml"]))
    runs.ends[1] = "refused"
    Curriculum(stages, tmp_path / "runs").run()
    Curriculum(stages, tmp_path / "runs", fresh=True).run()
    assert runs.bases == ["base", "model-0", "base", "model-2"]


def test_a_model_that_is_gone_is_trained_again(write, runs: Runs, tmp_path: Path):
    stages = read_curriculum(write(["questions.yaml", "actions.yaml"]))
    runs.ends[1] = "refused"
    Curriculum(stages, tmp_path / "runs").run()
    (tmp_path / "model-0").rmdir()
    Curriculum(stages, tmp_path / "runs").run()
    assert runs.bases == ["base", "model-0", "base", "model-2"]
