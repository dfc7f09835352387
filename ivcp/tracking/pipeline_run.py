"""The one MLflow run that all steps of a pipeline run log to."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ivcp.settings import RunConfig
from ivcp.tracking.client import DEFAULT_STORE, connect, tracking_uri
from ivcp.tracking.entries import RunStatus
from ivcp.tracking.experiment import create_run
from ivcp.tracking.outages import outages, unless_away
from ivcp.tracking.runs import LONGEST_TAG, given_run

log = logging.getLogger(__name__)

PARENT_TAG = "mlflow.parentRunId"
PIPELINE_RUN_TAG = "ivcp.pipeline_run"
"""Tag of an MLflow run with the id of its pipeline run."""

PLUGIN_TAG = "kfp.pipeline_run_id"
"""Tag with the id of its pipeline run of an MLflow run that KFP's own plugin opened, and ends (KFP 2.17)."""

_OF_PLUGIN = ("KFP_POD_NAME", "MLFLOW_EXPERIMENT_ID")
"""What a pod of KFP has beside an MLFLOW_RUN_ID of the plugin."""

ENDED_TAG = "ivcp.ended"
"""Tag of an MLflow run whose chain of steps came to a good end: which."""


def start_pipeline_run(
    config: RunConfig,
    *,
    default_store: Path = DEFAULT_STORE,
    run_name: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> str:
    """Starts the one run that all steps of a pipeline run log to, and returns its id for MLFLOW_RUN_ID."""
    client = connect(tracking_uri(config, default_store=default_store))
    name = config.train.run_name or run_name or "pipeline"
    run_id: str = create_run(client, config.tracking.mlflow_experiment_name, name, tags or {}).info.run_id
    return run_id


def open_pipeline_run(config: RunConfig, *, pipeline_run: str, run_name: str, parent: str | None = None) -> str:
    """The one MLflow run of a pipeline run, by that run's id; it is started where there is none yet.

    A step that is repeated finds what it started before, and every step what KFP's MLflow plugin started. `parent` is
    the run that a new one lies below.
    """
    found = find_pipeline_run(config, pipeline_run)
    if found is None:
        below = {} if parent is None else {PARENT_TAG: parent}
        return start_pipeline_run(config, run_name=run_name, tags={PIPELINE_RUN_TAG: pipeline_run, **below})
    run_id: str = found.info.run_id
    if PIPELINE_RUN_TAG not in found.data.tags:
        connect(tracking_uri(config)).set_tag(run_id, PIPELINE_RUN_TAG, pipeline_run)
    return run_id


def has_foreign_run() -> bool:
    """Whether the environment names a run of somebody else.

    KFP's plugin, where its administrator has it tell the steps, names a run of each task, below the pipeline run's.
    """
    is_plugins = all(os.environ.get(name) for name in _OF_PLUGIN)
    return bool(os.environ.get("MLFLOW_RUN_ID")) and not is_plugins


def note_end(config: RunConfig, how: str) -> None:
    """Says in the run that all steps log to that their chain ends here, and well; nothing where there is none.

    The step with which a chain ends calls this: KFP's own word for the end of a run does not tell.
    """
    run_id = given_run(config)
    if run_id and "mlflow" in config.train.report_to:
        unless_away(
            lambda: connect(tracking_uri(config)).set_tag(run_id, ENDED_TAG, how[:LONGEST_TAG]),
            otherwise=None,
            doing="noting the end of the run",
        )


def find_pipeline_run(config: RunConfig, pipeline_run: str) -> Any | None:
    """mlflow's `Run` of a pipeline run, that `open_pipeline_run` started, or KFP's plugin; null where there is none.

    The plugin's experiment is that of its administrator.
    """
    client = connect(tracking_uri(config))
    experiment = client.get_experiment_by_name(config.tracking.mlflow_experiment_name)
    ours = [] if experiment is None else [experiment.experiment_id]
    return _tagged(client, ours, PIPELINE_RUN_TAG, pipeline_run) or _tagged(
        client, [found.experiment_id for found in client.search_experiments()], PLUGIN_TAG, pipeline_run
    )


def _tagged(client: Any, experiments: list[str], tag: str, value: str) -> Any | None:
    if not experiments:
        return None
    runs = client.search_runs(experiments, filter_string=f"tags.`{tag}` = '{value}'", max_results=1)
    return runs[0] if runs else None


def finish_pipeline_run(
    run_id: str, status: RunStatus, *, config: RunConfig, default_store: Path = DEFAULT_STORE
) -> None:
    """Gives the run of `start_pipeline_run` its final status."""
    connect(tracking_uri(config, default_store=default_store)).set_terminated(run_id, status)


def continue_pipeline_run(run_id: str, *, config: RunConfig, default_store: Path = DEFAULT_STORE) -> bool:
    """Opens again the run of `start_pipeline_run` that was interrupted; false where the store has it no more."""
    from mlflow.exceptions import MlflowException

    try:
        connect(tracking_uri(config, default_store=default_store)).update_run(run_id, status="RUNNING")
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False
    return True


def close_killed_run(uri: str, run_id: str) -> bool:
    """Ends a run in the store `uri` whose owner was killed; false where that store cannot be reached now."""
    from mlflow.exceptions import MlflowException

    try:
        connect(uri).set_terminated(run_id, "KILLED")
    except outages() as error:
        if not isinstance(error, MlflowException) or error.error_code != "RESOURCE_DOES_NOT_EXIST":
            log.warning("MLflow run %s cannot be ended: %s", run_id, error)
            return False
    return True
