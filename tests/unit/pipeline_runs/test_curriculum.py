"""In which order the stages of a curriculum run, again after an interruption."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ivcp.pipeline_runs import curriculum
from ivcp.pipeline_runs.curriculum import Curriculum
from ivcp.pipeline_runs.local import PipelineFailedError
from ivcp.pipeline_runs.summary import RunSummary
from ivcp.settings import RunConfig
from ivcp.settings.curriculum import CurriculumStage, read_curriculum
from tests.curricula import write_curriculum


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a curriculum beside the two files that it may name."""
    return partial(write_curriculum, tmp_path)


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


def test_other_settings_of_a_later_stage_leave_the_earlier_ones_as_they_are(write, runs: Runs, tmp_path: Path):
    """What ran out of memory is mended in its file, and hours of the stage before are not trained again."""
    runs.ends[1] = "failed"
    with pytest.raises(PipelineFailedError):
        Curriculum(read_curriculum(write(["questions.yaml", "actions.yaml"])), tmp_path / "runs").run()
    mended = read_curriculum(write(["questions.yaml", {"settings": "actions.yaml", "tokens_per_batch": 100}]))
    Curriculum(mended, tmp_path / "runs", deploy=False).run()
    assert runs.bases == ["base", "model-0", "model-0"]
    Curriculum(mended, tmp_path / "runs", deploy=False).run()
    assert runs.bases[3:] == ["base", "model-3"], "it had come to its end"


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
