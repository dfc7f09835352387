"""The one place that every way of starting a run passes, before its first video is decoded.

`ivcp train` and `ivcp.train` call `check_training`; `ivcp run` calls `check_local_run`, and its first step, as on a
cluster, `check_started`; `ivcp submit` calls `check_submitted`, on a machine that may have neither model nor torch.
What one of them cannot see is left to the next.
"""

from __future__ import annotations

import os
from pathlib import Path

from ivcp.checks.base import check_base, check_method, is_elsewhere
from ivcp.checks.machine import (
    check_devices,
    check_distribution_files,
    check_paths,
    check_remote_adapter,
    check_room_for_checkpoints,
    warn_of_export_memory,
)
from ivcp.checks.settings import (
    check_no_fold,
    check_place_of_model,
    check_placement,
    check_protocol,
    check_registration,
    check_sharding,
    check_single_step,
    warn_of_ineffective,
    warn_of_upload_at_export,
)
from ivcp.data.registry import read_dataset_info
from ivcp.export.exits.engines.check import check_engines
from ivcp.export.exits.leaving import check_exits
from ivcp.models.path import looks_local
from ivcp.models.source import pinned
from ivcp.settings import ConfigError, RunConfig
from ivcp.settings.places import is_remote_model
from ivcp.stages.registry import check_stage, stage_of
from ivcp.tracking.steps import RECORDS_DIR_VARIABLE
from ivcp.training.packages import check_packages


def check_submitted(config: RunConfig) -> None:
    """Checks the settings of a run that starts on a cluster.

    Raises:
        ConfigError: a setting does not fit another one.
    """
    check_placement(config)
    check_sharding(config)
    check_protocol(config, has_classes=True)
    check_no_fold(config)
    warn_of_ineffective(config)


def is_on_cluster() -> bool:
    """Whether this is a step of a pipeline on a cluster: in a pod, and not of a run that `ivcp run` started there."""
    return RECORDS_DIR_VARIABLE not in os.environ and "KUBERNETES_SERVICE_HOST" in os.environ


def check_started(config: RunConfig) -> None:
    """Checks a pipeline's run in its first step: all that needs no training machine.

    A base model that is a path which this step does not see is left to those that do.

    Raises:
        ConfigError: a setting does not fit another one, or the base model.
        FileNotFoundError, HubError, BaseFilesError, UnsupportedModelError: the base model cannot be used.
    """
    is_local = RECORDS_DIR_VARIABLE in os.environ
    if not is_local:
        check_placement(config)
        check_place_of_model(config)
        check_no_fold(config)
    check_registration(config)
    check_sharding(config)
    check_stage(config)
    check_protocol(config, has_classes=stage_of(config).rows == "labels")
    check_exits(config)
    check_remote_adapter(config)
    if is_elsewhere(config.model):
        return
    _check_base(config, with_weights=True)
    check_engines(config.publishing.export_engines, config.model)
    check_method(config)
    _check_stage_settings(config)
    if not is_local:
        warn_of_export_memory(config)


def check_local_run(config: RunConfig, *, containers: bool) -> None:
    """Checks a pipeline's run on this machine before it begins, without torch; its first step checks the rest.

    Packages are those of the images where steps run in `containers`.

    Raises:
        ConfigError: a setting does not fit another one, or what is here.
        AnnotationError: a data set is not registered.
        FileNotFoundError, HubError, BaseFilesError: the base model cannot be used.
    """
    config = pinned(config)
    check_sharding(config)
    check_stage(config)
    check_protocol(config, has_classes=stage_of(config).rows == "labels")
    _check_base(config, with_weights=True)
    check_engines(config.publishing.export_engines, config.model)
    check_data_sets(config)
    check_paths(config)
    check_distribution_files(config)
    if not containers:
        check_packages(config)
    check_exits(config)
    warn_of_ineffective(config)


def check_data_sets(config: RunConfig) -> None:
    """Checks that data sets are named and registered.

    Raises:
        ConfigError: none is named.
        AnnotationError: one is not registered, or its entry cannot be used.
    """
    data = config.data
    if not data.dataset:
        raise ConfigError("dataset is not set: name at least one entry of dataset_info.json to train on")
    for name in (*data.dataset, *data.eval_dataset, *data.test_dataset):
        read_dataset_info(name, data.dataset_dir, rows=stage_of(config).rows)


def check_validation(config: RunConfig) -> None:
    """Checks, for validation, the part of the base model that reads clips; it does without a model of the hub.

    Raises:
        FileNotFoundError, BaseFilesError: it cannot be used.
    """
    check_stage(config)
    name = config.model.model_name_or_path
    if name is not None and (is_remote_model(name) or looks_local(name) or Path(name).exists()):
        _check_base(config, with_weights=False)


def check_preparation(config: RunConfig) -> None:
    """Checks, for preparation, the part of the base model that reads clips.

    Raises:
        FileNotFoundError, HubError, BaseFilesError: it cannot be used.
    """
    check_stage(config)
    _check_base(config, with_weights=False)


def check_training(config: RunConfig, *, num_processes: int) -> None:
    """Checks a training that begins here, in `num_processes` processes.

    Raises:
        ConfigError: a setting does not fit another one, the base model, or this machine.
        AnnotationError: a data set is not registered.
        FileNotFoundError, HubError, BaseFilesError, UnsupportedModelError, AttentionError: the base model cannot be
            used, or not here.
    """
    check_stage(config)
    check_protocol(config, has_classes=stage_of(config).rows == "labels")
    check_single_step(config, num_processes=num_processes)
    _check_base(config, with_weights=True)
    check_data_sets(config)
    check_paths(config)
    check_distribution_files(config)
    check_packages(config)
    check_devices(config)
    check_method(config)
    _check_stage_settings(config)
    check_room_for_checkpoints(config, Path(config.train.output_dir))
    warn_of_ineffective(config)
    warn_of_upload_at_export(config)


def _check_stage_settings(config: RunConfig) -> None:
    """Checks what the settings say of metrics, classes and answers, which are the stage's."""
    from ivcp.evaluation.language.asked import check_measuring
    from ivcp.training.arguments import check_stage_settings, metric_for_best_model

    stage = stage_of(config)
    metric_for_best_model(stage)
    check_stage_settings(stage)
    check_measuring(stage, config)


def _check_base(config: RunConfig, *, with_weights: bool) -> None:
    """The stages that train a model to write take a text model, too."""
    check_base(config.model, with_weights=with_weights, has_media=stage_of(config).rows == "labels")
