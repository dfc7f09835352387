"""Runs a curriculum on this machine: its stages one after another, and behind those that came to their end."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ivcp.pipeline_runs.local import PipelineFailedError, run_locally
from ivcp.pipeline_runs.parameters import pipeline_arguments
from ivcp.pipeline_runs.parent_run import ParentRun
from ivcp.pipeline_runs.run_folder import run_fingerprint
from ivcp.pipeline_runs.summary import INTERRUPTED, RunSummary
from ivcp.records import Record
from ivcp.settings import RunConfig
from ivcp.settings.curriculum import CurriculumStage
from ivcp.storage.atomic import writable_folder
from ivcp.storage.owner import owned
from ivcp.tracking import PARENT_TAG, RunStatus

log = logging.getLogger(__name__)

FOLDER = "curricula"
"""In the runs folder: how far curricula have come."""
_STATE_FILE = "state.json"


class FinishedStage(Record):
    """A stage that came to its end."""

    fingerprint: str
    """Of its settings, its data and the model that it started from."""
    model_dir: str


class CurriculumState(Record):
    """How far a curriculum has come, and the MLflow run that those of its stages lie below."""

    mlflow_run_id: str | None = None
    """Null where MLflow was away."""
    stages: tuple[FinishedStage, ...] = ()


@dataclass(frozen=True)
class _Done:
    stage: FinishedStage
    file: Path
    """Where that stands."""


@dataclass(frozen=True)
class Curriculum:
    """Stages that are run one after another, each as a run of its own in `runs_dir`; the last one is deployed."""

    stages: tuple[CurriculumStage, ...]
    runs_dir: Path
    deploy: bool = True
    containers: bool = False
    fresh: bool = False
    """Whether to start anew, whatever an earlier call left."""
    on_end: Callable[[CurriculumStage, RunSummary], None] = lambda stage, summary: None
    """Is told of each stage that ran."""

    def run(self) -> RunSummary:
        """Runs the stages; the same call again goes on behind those that came to their end.

        So does one with other settings of later stages, unless the curriculum has come to its end: what a stage is
        known by are its settings, its data and the model that it starts from.

        A stage that the gate refuses, or that is interrupted, is the last one: its summary is returned.

        Raises:
            PipelineFailedError: a stage failed.
            InUseError: another process is at the same curriculum.
        """
        folder = writable_folder(self.runs_dir / FOLDER / self._fingerprint())
        with owned(folder, advice="wait for its end, or start it with another --runs-dir"):
            state = self._found(folder)
            state = state.model_copy(update={"mlflow_run_id": self._parent.opened(state.mlflow_run_id)})
            state.write(folder / _STATE_FILE)
            status: RunStatus = "FAILED"
            try:
                summary = self._run_stages(state, folder / _STATE_FILE, self._done())
                status = "KILLED" if summary.status == INTERRUPTED else "FINISHED"
            finally:
                self._parent.end(state.mlflow_run_id, status)
        return summary

    def _run_stages(self, state: CurriculumState, file: Path, done: Mapping[str, _Done]) -> RunSummary:
        finished: list[FinishedStage] = []
        used, model_dir = {file}, None
        for stage in self.stages:
            config = stage.config if model_dir is None else stage.starting_from(model_dir)
            deploys = self.deploy and stage is self.stages[-1]
            fingerprint = run_fingerprint(
                config, pipeline_arguments(config, deploy=deploys), uri=self._parent.uri, containers=self.containers
            )
            if fingerprint in done and stage is not self.stages[-1]:
                found = done[fingerprint]
                used.add(found.file)
                finished.append(found.stage)
                model_dir = found.stage.model_dir
                log.info("%s is done: its model is in %s", stage.name, model_dir)
                continue
            summary = self._run_stage(stage, config, state, deploys=deploys)
            if summary.status != "succeeded" or summary.model_dir is None:
                break
            model_dir = str(Path(summary.model_dir).resolve())
            finished.append(FinishedStage(fingerprint=fingerprint, model_dir=model_dir))
            state.model_copy(update={"stages": tuple(finished)}).write(file)
        else:
            for each in used:  # the same call again is another curriculum
                each.unlink(missing_ok=True)
        return summary

    def _run_stage(
        self, stage: CurriculumStage, config: RunConfig, state: CurriculumState, *, deploys: bool
    ) -> RunSummary:
        log.info("stage %s of %d", stage.name, len(self.stages))
        try:
            summary = run_locally(
                config,
                runs_dir=self.runs_dir,
                deploy=deploys,
                containers=self.containers,
                fresh=self.fresh,
                tags={PARENT_TAG: state.mlflow_run_id} if state.mlflow_run_id else {},
            )
        except PipelineFailedError as error:
            raise PipelineFailedError(f"stage {stage.name}: {error}", error.summary) from error
        self.on_end(stage, summary)
        return summary

    def _found(self, folder: Path) -> CurriculumState:
        """What an earlier call left; nothing where that came to its end, for this is another curriculum then."""
        file = folder / _STATE_FILE
        return CurriculumState.read(file) if file.is_file() and not self.fresh else CurriculumState()

    def _done(self) -> dict[str, _Done]:
        """The stages that curricula have trained which did not come to their end, by their fingerprints."""
        files = [] if self.fresh else sorted((self.runs_dir / FOLDER).glob(f"*/{_STATE_FILE}"))
        return {
            stage.fingerprint: _Done(stage, file)
            for file in files
            for stage in CurriculumState.read(file).stages
            if Path(stage.model_dir).is_dir()
        }

    def _fingerprint(self) -> str:
        described = [[stage.config.flat() for stage in self.stages], self._parent.uri, self.containers, self.deploy]
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def _parent(self) -> ParentRun:
        name = f"curriculum of {', '.join(stage.name for stage in self.stages)}"
        return ParentRun(self.stages[0].config, self.runs_dir, name, "the curriculum")
