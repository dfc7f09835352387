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

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ivcp.settings.files import ConfigError, config_from_settings, read_yaml
from ivcp.settings.run import RunConfig

log = logging.getLogger(__name__)

CURRICULUM = "curriculum"
_FILE_KEY = "settings"


@dataclass(frozen=True)
class CurriculumStage:
    """One stage as the file has it."""

    number: int
    """From 1."""
    of: int
    """How many there are."""
    config: RunConfig

    @property
    def name(self) -> str:
        """Its number and kind, as `1-sft`."""
        return f"{self.number}-{self.config.method.stage}"

    @property
    def given(self) -> dict[str, Any]:
        """Its settings that are no default."""
        return self.config.changed()

    def run_of(self, pipeline_run: str) -> str:
        """What stands for it in a pipeline run that trains all stages."""
        return run_of_stage(pipeline_run, self.number, self.of)

    def starting_from(self, model_dir: str) -> RunConfig:
        """Its settings with an earlier stage's model as its base."""
        named = self.config.model.model_name_or_path
        log.info("%s starts from %s%s", self.name, model_dir, f", not from {named}" if named else "")
        model = self.config.model.model_copy(update={"model_name_or_path": model_dir, "model_revision": "main"})
        return self.config.model_copy(update={"model": model})


def is_curriculum(path: Path) -> bool:
    """Whether a file of settings is a curriculum.

    Raises:
        FileNotFoundError, ConfigError: it cannot be read.
    """
    return CURRICULUM in read_yaml(path)


def read_curriculum(path: Path, overrides: Mapping[str, Any] | None = None) -> tuple[CurriculumStage, ...]:
    """The stages of a curriculum's file, each with the base model that its own settings name.

    `overrides` win over the settings of every stage. A `run_name` that stages share is followed by theirs, and so is
    the `registered_model_name` that an earlier stage shares with the last one: its model is no version of that.

    Raises:
        FileNotFoundError: the file, or one that it names, does not exist.
        ConfigError: they are no such files, or their settings cannot be used.
    """
    return curriculum_from_settings(read_yaml(path), overrides, source=str(path), folder=path.parent)


def curriculum_from_settings(
    settings: Mapping[str, Any],
    overrides: Mapping[str, Any] | None = None,
    *,
    source: str,
    folder: Path | None = None,
) -> tuple[CurriculumStage, ...]:
    """The stages of settings with a list `curriculum`, as `read_curriculum` reads them from a file.

    Args:
        settings: With `curriculum`.
        overrides: Win over the settings of every stage.
        source: Where they are from, for messages.
        folder: Where the files lie that stages name; null where they cannot name any.

    Raises:
        FileNotFoundError: a file that they name does not exist.
        ConfigError: they cannot be used.
    """
    entries = settings.get(CURRICULUM)
    common = {key: value for key, value in settings.items() if key != CURRICULUM}
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"{source}: {CURRICULUM} = {entries!r}: expected a list of settings files, or of settings")
    stages = []
    for number, entry in enumerate(entries, start=1):
        given, where = _settings_of(entry, f"{source}, stage {number}", folder)
        config = config_from_settings({**common, **given, **(overrides or {})}, source=where)
        stages.append(CurriculumStage(number, len(entries), config))
    _check(stages, source)
    return tuple(_with_own_names(stage, stages) for stage in stages)


def curriculum_text(stages: Sequence[CurriculumStage]) -> str:
    """One line of JSON, which is YAML as well, with all that the stages say and no file: what a form takes."""
    return json.dumps({CURRICULUM: [stage.given for stage in stages]}, ensure_ascii=False)


def first_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a curriculum's first stage, unchecked; those of one run as they are."""
    common = {key: value for key, value in settings.items() if key != CURRICULUM}
    stages = settings.get(CURRICULUM)
    first = stages[0] if isinstance(stages, list) and stages else {}
    return common | (first if isinstance(first, dict) else {})


def run_of_stage(pipeline_run: str, number: int, of: int) -> str:
    """What stands for a stage, by its number from 1, in a pipeline run that trains all of them: the run itself, where
    it is the only one."""
    return pipeline_run if of == 1 else f"{pipeline_run}-{number}"


def pipeline_name(stages: int) -> str:
    """What the pipeline of Kubeflow is called that trains so many stages."""
    return "action-cls" if stages == 1 else f"curriculum-{stages}"


def _settings_of(entry: Any, where: str, folder: Path | None) -> tuple[dict[str, Any], str]:
    """A stage's own settings, and what messages call their source."""
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
    if folder is None:
        raise ConfigError(
            f"{where}: {_FILE_KEY} = {file!r}: a step on a cluster has no such file: write the stage's settings here, "
            "or submit the curriculum's file with `ivcp submit`, which does it"
        )
    settings = read_yaml(folder / Path(file).expanduser())
    if CURRICULUM in settings:
        raise ConfigError(f"{where}: {file} is a curriculum itself: list its stages here")
    return settings | own, f"{where} ({file})"


def _check(stages: Sequence[CurriculumStage], source: str) -> None:
    places = [stage.config.export.export_dir for stage in stages if stage.config.export.export_dir is not None]
    if len(set(places)) < len(places):
        raise ConfigError(f"{source}: export_dir = {places[0]} is that of several stages: give each its own")
    for stage in stages[1:]:
        if stage.config.method.adapter_name_or_path is not None:
            raise ConfigError(
                f"{source}, stage {stage.name}: adapter_name_or_path = {stage.config.method.adapter_name_or_path}: a "
                "later stage starts from the merged model of the one before, which no earlier adapter fits: remove it"
            )
    for stage in stages:
        protocol = stage.config.protocol
        if protocol.repeats or protocol.fold is not None:
            raise ConfigError(
                f"{source}, stage {stage.name}: folds, seeds and official_splits train one recipe several times, and a "
                "curriculum makes one model: remove them, and run the last stage's file alone, on the model of the one "
                "before"
            )
    for stage in stages[:-1]:
        if stage.config.evaluation.skip_unchanged:
            raise ConfigError(
                f"{source}, stage {stage.name}: skip_unchanged: the stage behind it needs its model: set it in the "
                "last stage alone"
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
