"""A curriculum: stages that are trained one after another, each on the model that the one before has made.

    curriculum:
      - questions_1.yaml
      - questions_2.yaml
      - settings: actions.yaml
        learning_rate: 1.0e-4
    model_name_or_path: models/base
    seed: 7

A stage is a file of settings beside this one, settings, or both. What stands beside `curriculum` is for all stages, and
a stage's own settings win over it. The first stage starts from its `model_name_or_path`, and every later one from the
merged model of the one before, whatever its file names: the same files can be run alone.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ivcp.pipeline_runs.local import PipelineFailedError, run_locally
from ivcp.pipeline_runs.parameters import pipeline_arguments
from ivcp.pipeline_runs.run_folder import run_fingerprint
from ivcp.pipeline_runs.summary import INTERRUPTED, RunSummary
from ivcp.records import Record
from ivcp.settings import ConfigError, RunConfig
from ivcp.settings.files import config_from_settings, read_yaml
from ivcp.storage.atomic import writable_folder
from ivcp.storage.owner import owned
from ivcp.tracking import (
    RunStatus,
    continue_pipeline_run,
    finish_pipeline_run,
    start_pipeline_run,
    tracking_uri,
    unless_away,
)

log = logging.getLogger(__name__)

KEY = "curriculum"
FOLDER = "curricula"
"""In the runs folder: how far curricula have come."""
_STATE_FILE = "state.json"
_FILE_KEY = "settings"
_PARENT_TAG = "mlflow.parentRunId"


@dataclass(frozen=True)
class CurriculumStage:
    """One stage as the file has it."""

    name: str
    """Its number and kind, as `1-sft`."""
    config: RunConfig


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


def is_curriculum(path: Path) -> bool:
    """Whether a file of settings is a curriculum.

    Raises:
        FileNotFoundError, ConfigError: it cannot be read.
    """
    return KEY in read_yaml(path)


def read_curriculum(path: Path, overrides: Mapping[str, Any] | None = None) -> tuple[CurriculumStage, ...]:
    """The stages of a curriculum's file, each with the base model that its own settings name.

    `overrides` win over the settings of every stage. A `run_name` that stages share is followed by theirs, and so is
    the `registered_model_name` that an earlier stage shares with the last one: its model is no version of that.

    Raises:
        FileNotFoundError: the file, or one that it names, does not exist.
        ConfigError: they are no such files, or their settings cannot be used.
    """
    common = read_yaml(path)
    entries = common.pop(KEY, None)
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"{path}: {KEY} = {entries!r}: expected a list of settings files, or of settings")
    stages = []
    for number, entry in enumerate(entries, start=1):
        given, source = _settings_of(entry, path, number)
        config = config_from_settings({**common, **given, **(overrides or {})}, source=source)
        stages.append(CurriculumStage(f"{number}-{config.method.stage}", config))
    _check(stages, path)
    return tuple(_with_own_names(stage, stages) for stage in stages)


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

        A stage that the gate refuses, or that is interrupted, is the last one: its summary is returned.

        Raises:
            PipelineFailedError: a stage failed.
            InUseError: another process is at the same curriculum.
        """
        folder = writable_folder(self.runs_dir / FOLDER / self._fingerprint())
        with owned(folder, advice="wait for its end, or start it with another --runs-dir"):
            state = self._tracked(self._found(folder))
            state.write(folder / _STATE_FILE)
            status: RunStatus = "FAILED"
            try:
                summary = self._run_stages(state, folder / _STATE_FILE)
                status = "KILLED" if summary.status == INTERRUPTED else "FINISHED"
            finally:
                self._end(state, status)
        return summary

    def _run_stages(self, state: CurriculumState, file: Path) -> RunSummary:
        finished, model_dir = list(state.stages), None
        for number, stage in enumerate(self.stages):
            config = stage.config if model_dir is None else _starting_from(stage, model_dir)
            deploys = self.deploy and stage is self.stages[-1]
            fingerprint = run_fingerprint(
                config, pipeline_arguments(config, deploy=deploys), uri=self._uri, containers=self.containers
            )
            if number < len(finished) and finished[number].fingerprint == fingerprint:
                model_dir = finished[number].model_dir
                log.info("%s is done: its model is in %s", stage.name, model_dir)
                continue
            summary = self._run_stage(stage, config, state, deploys=deploys)
            if summary.status != "succeeded" or summary.model_dir is None:
                break
            model_dir = str(Path(summary.model_dir).resolve())
            finished = [*finished[:number], FinishedStage(fingerprint=fingerprint, model_dir=model_dir)]
            state.model_copy(update={"stages": tuple(finished)}).write(file)
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
                tags={_PARENT_TAG: state.mlflow_run_id} if state.mlflow_run_id else {},
            )
        except PipelineFailedError as error:
            raise PipelineFailedError(f"stage {stage.name}: {error}", error.summary) from error
        self.on_end(stage, summary)
        return summary

    def _found(self, folder: Path) -> CurriculumState:
        """What an earlier call left; nothing where that came to its end, for this is another curriculum then."""
        file = folder / _STATE_FILE
        state = CurriculumState.read(file) if file.is_file() and not self.fresh else CurriculumState()
        is_left = all(Path(stage.model_dir).is_dir() for stage in state.stages)
        return state if is_left and len(state.stages) < len(self.stages) else CurriculumState()

    def _fingerprint(self) -> str:
        described = [[stage.config.flat() for stage in self.stages], self._uri, self.containers, self.deploy]
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def _uri(self) -> str:
        return tracking_uri(self.stages[0].config, default_store=self.runs_dir)

    def _tracked(self, state: CurriculumState) -> CurriculumState:
        """With an MLflow run: the one that it had, or a new one; none where MLflow is away."""
        config, earlier = self.stages[0].config, state.mlflow_run_id
        if earlier is not None and unless_away(
            lambda: continue_pipeline_run(earlier, config=config, default_store=self.runs_dir),
            otherwise=True,
            doing="going on with the curriculum's run in MLflow",
        ):
            return state
        name = f"curriculum of {', '.join(stage.name for stage in self.stages)}"
        run_id = unless_away(
            lambda: start_pipeline_run(_unnamed(config), default_store=self.runs_dir, run_name=name),
            otherwise=None,
            doing="starting the curriculum's run in MLflow",
        )
        return state.model_copy(update={"mlflow_run_id": run_id})

    def _end(self, state: CurriculumState, status: RunStatus) -> None:
        run_id = state.mlflow_run_id
        if run_id is not None:
            unless_away(
                lambda: finish_pipeline_run(run_id, status, config=self.stages[0].config, default_store=self.runs_dir),
                otherwise=None,
                doing="ending the curriculum's run in MLflow",
            )


def _settings_of(entry: Any, path: Path, number: int) -> tuple[dict[str, Any], str]:
    """A stage's own settings, and what messages call their source."""
    where = f"{path}, stage {number}"
    if isinstance(entry, str):
        entry = {_FILE_KEY: entry}
    if not isinstance(entry, dict):
        raise ConfigError(f"{where}: expected the path of a settings file, or settings, got {entry!r}")
    own = {str(key): value for key, value in entry.items()}
    file = own.pop(_FILE_KEY, None)
    if file is None:
        return own, where
    if not isinstance(file, str):
        raise ConfigError(f"{where}: {_FILE_KEY} = {file!r}: expected the path of a settings file")
    settings = read_yaml(path.parent / Path(file).expanduser())
    if KEY in settings:
        raise ConfigError(f"{where}: {file} is a curriculum itself: list its stages here")
    return settings | own, f"{where} ({file})"


def _check(stages: Sequence[CurriculumStage], path: Path) -> None:
    places = [stage.config.export.export_dir for stage in stages if stage.config.export.export_dir is not None]
    if len(set(places)) < len(places):
        raise ConfigError(f"{path}: export_dir = {places[0]} is that of several stages: give each its own")
    for stage in stages[1:]:
        if stage.config.method.adapter_name_or_path is not None:
            raise ConfigError(
                f"{path}, stage {stage.name}: adapter_name_or_path = {stage.config.method.adapter_name_or_path}: a "
                "later stage starts from the merged model of the one before, which no earlier adapter fits: remove it"
            )
    for stage in stages[:-1]:
        if stage.config.evaluation.skip_unchanged:
            raise ConfigError(
                f"{path}, stage {stage.name}: skip_unchanged: the stage behind it needs its model: set it in the last "
                "stage alone"
            )


def _with_own_names(stage: CurriculumStage, stages: Sequence[CurriculumStage]) -> CurriculumStage:
    config = stage.config
    if [other.config.train.run_name for other in stages].count(config.train.run_name) > 1 and config.train.run_name:
        train = config.train.model_copy(update={"run_name": f"{config.train.run_name}-{stage.name}"})
        config = config.model_copy(update={"train": train})
    registered = config.registered_name
    if stage is not stages[-1] and registered == stages[-1].config.registered_name:
        export = config.export.model_copy(update={"registered_model_name": f"{registered}-{stage.name}"})
        config = config.model_copy(update={"export": export})
    return replace(stage, config=config)


def _starting_from(stage: CurriculumStage, model_dir: str) -> RunConfig:
    """The settings of a stage with an earlier stage's model as its base."""
    named = stage.config.model.model_name_or_path
    log.info("%s starts from %s%s", stage.name, model_dir, f", not from {named}" if named else "")
    model = stage.config.model.model_copy(update={"model_name_or_path": model_dir, "model_revision": "main"})
    return stage.config.model_copy(update={"model": model})


def _unnamed(config: RunConfig) -> RunConfig:
    """The first stage's settings without its name, which is not the curriculum's."""
    return config.model_copy(update={"train": config.train.model_copy(update={"run_name": None})})
