"""The `run_start` step: settings, tracking and the data's fingerprint, which all other steps use."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ivcp import storage
from ivcp.checks.run import check_started, is_on_cluster
from ivcp.data.registry import REGISTRY_FILE
from ivcp.lifecycle.places import check_reachable, default_places
from ivcp.models.source import pinned
from ivcp.settings import SECTION_OF_KEY, ConfigError, RunConfig, config_from_settings, read_pasted, save_config
from ivcp.settings.curriculum import CURRICULUM, CurriculumStage, curriculum_from_settings, pipeline_name
from ivcp.settings.form import PREFIX, read_fields
from ivcp.settings.pasted import PASTED
from ivcp.stages.registry import stage_of
from ivcp.tracking import has_foreign_run, has_store, open_pipeline_run, unless_away
from ivcp.tracking.steps import RECORDS_DIR_VARIABLE, recorded_step
from ivcp.validation.data_fingerprint import data_fingerprint
from ivcp.validation.reuse import DATA_KEYS

log = logging.getLogger(__name__)

_BASE = "model_name_or_path"
_DATA_SECTIONS = ("model", "data", "video")
"""With `DATA_KEYS` and the stage's `data_settings`, all that validation and preparation read. They get nothing else, so
that another learning rate finds the results that the cluster keeps of them."""
_LAUNCHER_CPU, _LAUNCHER_MEMORY = "1", "4Gi"
"""Of a training step that only starts a job and follows it."""


class RunStart(NamedTuple):
    """What the pipeline needs of the settings; names and order are those of the component's outputs."""

    data_settings: str
    """The settings that validation and preparation depend on, as JSON."""
    data_fingerprint: str
    shards_uri: str
    accelerator_type: str
    accelerators: str
    """Of the training step: none where it starts a job that has them."""
    cpu: str
    """CPUs of the training step."""
    memory: str
    """Memory of the training step."""
    node_selector: dict[str, str]
    """Nodes of the training step."""
    tolerations: list[dict[str, Any]]
    evaluation_accelerators: str
    model_cpu: str
    """CPUs of evaluation and export, which load the model too."""
    model_memory: str
    model_node_selector: dict[str, str]
    """Nodes of evaluation."""
    model_tolerations: list[dict[str, Any]]


def run_step(parameters: Mapping[str, Any], *, run_config: str, run_config_uri: str) -> RunStart:
    """Resolves the settings among `parameters` and writes them to the file `run_config`, an artifact with this URI.

    They are the text of a YAML file in `settings`, under the filled-in fields of the form, under `overrides`.
    `pipeline_run` and `pipeline_run_name` among the parameters are KFP's id and name of the run; `deploy` says whether
    a good model is to be deployed. With several `stages`, the text is a curriculum of so many, and the settings are
    those of number `stage`, from 1; the field of the base model then is what the stage before has made, and wins over
    everything.

    Raises:
        ConfigError: a setting cannot be used or is missing, asks for what training does not do, or there is nowhere to
            track the run.
        FileNotFoundError, HubError, BaseFilesError, RegistryError, UnsupportedModelError: the base model cannot be
            used.
        AnnotationError: the registry of data sets or an annotation file cannot be read.
    """
    with recorded_step("run_start") as outcome:
        stages = _stages(parameters)
        stage = stages[parameters["stage"] - 1] if stages else None
        given = _given(parameters, stage)
        places = _default_places(run_config_uri, parameters["pipeline_run"])
        config = _checked(given, places)
        for later in stages[1:] if parameters["stage"] == 1 else ():  # before anything is trained
            data_fingerprint(_checked(later.given | {_BASE: config.model.model_name_or_path}, places))
        if parameters["deploy"] and is_on_cluster():
            _check_deployable(config)
        shards_uri = _shards_uri(config, is_given="shards_uri" in given)
        data = data_settings(config)
        config = _tracked(config, parameters["pipeline_run"], parameters["pipeline_run_name"], stage)
        save_config(config, Path(run_config))
        started = RunStart(
            data_settings=data,
            data_fingerprint=data_fingerprint(config),
            shards_uri=shards_uri,
            **_placement(config),
        )
        outcome.result = f"data {started.data_fingerprint[:12]}"
    return started


def _stages(parameters: Mapping[str, Any]) -> tuple[CurriculumStage, ...]:
    """The stages of a curriculum; none where the settings are those of one run.

    Raises:
        ConfigError: the settings are not for this pipeline.
    """
    pasted, expected = read_pasted(parameters["settings"]), parameters["stages"]
    if expected == 1 and CURRICULUM not in pasted:
        return ()
    found = curriculum_from_settings(pasted, parameters["overrides"], source=PASTED)
    if len(found) != expected:
        fitting = pipeline_name(len(found))
        raise ConfigError(
            f"{PASTED} is a curriculum of {len(found)} stages, and this pipeline trains {expected}: start a run of the "
            f"pipeline {fitting}, or submit the file with `ivcp submit`, which uploads that one"
        )
    return found


def _given(parameters: Mapping[str, Any], stage: CurriculumStage | None) -> dict[str, Any]:
    """The settings that were given."""
    fields = read_fields(parameters)
    if stage is not None:
        return {**stage.given, **fields}
    return {**read_pasted(parameters["settings"]), **fields, **parameters["overrides"]}


def _checked(given: Mapping[str, Any], places: Mapping[str, str]) -> RunConfig:
    """The configuration of given settings, on top of `places`, once training can be started with it.

    Raises:
        ConfigError, FileNotFoundError, HubError, BaseFilesError, RegistryError, UnsupportedModelError: it cannot.
    """
    config = config_from_settings({**places, **given}, source="pipeline parameters")
    _check_given(config, given)
    config = with_serve_target(pinned(config))
    check_started(config)
    return config


def _default_places(artifact_uri: str, pipeline_run: str) -> dict[str, str]:
    """Where clips and models go unless the settings say; `ivcp run` says it itself."""
    return {} if RECORDS_DIR_VARIABLE in os.environ else default_places(artifact_uri, pipeline_run=pipeline_run)


def _check_given(config: RunConfig, given: Mapping[str, Any]) -> None:
    """Checks that the settings have what no run can do without.

    Raises:
        ConfigError: one is missing.
    """
    missing = [key for key in ("model_name_or_path", "dataset") if not given.get(key)]
    if "dataset_dir" not in given and not storage.exists(storage.join(config.data.dataset_dir, REGISTRY_FILE)):
        missing.append("dataset_dir")
    if missing:
        fields = " and ".join(f"{PREFIX}{key}" for key in missing)
        raise ConfigError(
            f"{' and '.join(missing)} not set: fill in {fields}, or name a file in `settings` that says it; a base "
            "model, data sets, and the s3:// prefix with their dataset_info.json are what each run needs"
        )


def _check_deployable(config: RunConfig) -> None:
    """Checks that what a cluster deploys has a version that all steps know.

    Raises:
        ConfigError: there is no MLflow server; each step's pod would have a registry of its own.
    """
    if config.serving.serve_target == "cluster" and not has_store(config):
        raise ConfigError(
            "a model is deployed to a cluster by its version in MLflow's registry, and there is no MLflow server: set "
            "mlflow_tracking_uri, or MLFLOW_TRACKING_URI in the Kubernetes secret ivcp-mlflow (report_to: none leaves "
            "the run out of it, the registry is needed all the same); or deploy: false, or serve_target: local"
        )


def _shards_uri(config: RunConfig, *, is_given: bool) -> str:
    """Where the prepared clips go.

    Raises:
        ConfigError: nothing says where, or the place below the pipeline root is not reached.
    """
    place = config.cluster.shards_uri
    if place is None:
        raise ConfigError("shards_uri = null: every step must reach the prepared clips; give a place, or leave it out")
    if not is_given and storage.is_s3(place):
        check_reachable(place)
    return place


def with_serve_target(config: RunConfig) -> RunConfig:
    """`config` with a null `serve_target` resolved for where this step runs."""
    if config.serving.serve_target is not None:
        return config
    target: Literal["local", "cluster"] = "cluster" if is_on_cluster() else "local"
    log.info("serve_target is not set: %s, for where this run is", target)
    return config.model_copy(update={"serving": config.serving.model_copy(update={"serve_target": target})})


def data_settings(config: RunConfig) -> str:
    """The settings that validation and preparation depend on, as JSON.

    Raises:
        ConfigError: there is no such stage.
    """
    keys = {*DATA_KEYS, *stage_of(config).data_settings}
    chosen = {
        key: value
        for key, value in config.with_data_seed().flat().items()
        if SECTION_OF_KEY[key] in _DATA_SECTIONS or key in keys
    }
    return json.dumps(chosen, sort_keys=True)


def _tracked(config: RunConfig, pipeline_run: str, name: str, stage: CurriculumStage | None = None) -> RunConfig:
    """`config` with the run that the steps log to, unless the environment names somebody else's.

    That of a stage lies below the one of the curriculum, whose steps log nothing to it themselves.
    """
    if has_foreign_run() or "mlflow" not in config.train.report_to:
        return config
    if not has_store(config):
        raise ConfigError(
            "no MLflow server: set mlflow_tracking_uri, or MLFLOW_TRACKING_URI in the Kubernetes secret ivcp-mlflow; "
            "a file in one step's pod would be gone with it, and the registered models too"
        )

    def opened() -> str:
        whole = open_pipeline_run(config, pipeline_run=pipeline_run, run_name=name)
        if stage is None or stage.of == 1:
            return whole
        own = stage.run_of(pipeline_run)
        return open_pipeline_run(config, pipeline_run=own, run_name=f"{name}, {stage.name}", parent=whole)

    run_id = unless_away(opened, otherwise=None, doing="starting the run in MLflow")
    tracking = config.tracking.model_copy(update={"mlflow_run_id": run_id})
    return config.model_copy(update={"tracking": tracking})


def _placement(config: RunConfig) -> dict[str, Any]:
    """Resources and nodes of the steps that load the model, as Kubernetes wants them."""
    cluster, starts_a_job = config.cluster, config.launch.train_launcher == "trainjob"
    node_selector, tolerations = dict(cluster.train_node_selector), cluster.model_dump(mode="json")["train_tolerations"]
    return {
        "accelerator_type": cluster.train_accelerator_type,
        "accelerators": "0" if starts_a_job else str(cluster.train_accelerator_count),
        "cpu": _LAUNCHER_CPU if starts_a_job else cluster.train_cpu,
        "memory": _LAUNCHER_MEMORY if starts_a_job else cluster.train_memory,
        "node_selector": {} if starts_a_job else node_selector,
        "tolerations": [] if starts_a_job else tolerations,
        "evaluation_accelerators": str(min(1, cluster.train_accelerator_count)),
        "model_cpu": cluster.train_cpu,
        "model_memory": cluster.train_memory,
        "model_node_selector": node_selector,
        "model_tolerations": tolerations,
    }
