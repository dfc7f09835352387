"""MLflow's experiments and runs: found or made, and the address of a run's page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ivcp.tracking.client import connect, sqlite_file
from ivcp.tracking.entries import Opening
from ivcp.tracking.outages import unless_away, without_login

_KIND_TAG, _TRAINS_MODELS = "mlflow.experimentKind", "custom_model_development"
"""MLflow's word for an experiment that trains models."""
_USUAL_UI = "http://127.0.0.1:5000"
"""Where `mlflow ui` answers for a store that is a file."""


def create_run(client: Any, experiment: str, run_name: str, tags: Mapping[str, str], time: int | None = None) -> Any:
    """Starts a run in the experiment of that name, which is made where there is none.

    `time` is its beginning, in milliseconds since 1970.
    """
    return client.create_run(_experiment_id(client, experiment), start_time=time, run_name=run_name, tags=dict(tags))


def opened_run(client: Any, opening: Opening) -> Any:
    """mlflow's `Run`: the one that there is, or a new one.

    Raises:
        ValueError: there is no such run, or the experiment was deleted.
    """
    if opening.run_id is None:
        return create_run(client, opening.experiment, opening.run_name, opening.tags, opening.time)
    return _existing_run(client, opening.run_id)


def run_page(uri: str, run: Any) -> str:
    """The address of the page of mlflow's `Run`, in the view for model training.

    MLflow's pages have two views, and show that of GenAI to whoever did not choose before; the experiment's kind
    changes nothing of that (3.17), the address does. Of a store that is a file, it is what `mlflow ui` shows.
    """
    server = without_login(uri).rstrip("/") if uri.startswith(("http://", "https://")) else _USUAL_UI
    return f"{server}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}?workflowType=machine_learning"


def find_run_page(uri: str, run_id: str) -> str:
    """The same for a run by its id; empty where there is none, or MLflow is away."""
    return unless_away(
        lambda: run_page(uri, connect(uri).get_run(run_id)), otherwise="", doing="looking for the run's page"
    )


def _existing_run(client: Any, run_id: str) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise ValueError(
            f"MLFLOW_RUN_ID = {run_id}, which cannot be read from {client.tracking_uri}: "
            f"point mlflow_tracking_uri at that run's store, or unset MLFLOW_RUN_ID ({error})"
        ) from error


def _experiment_id(client: Any, name: str) -> str:
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            created: str = client.create_experiment(
                name, artifact_location=_artifact_location(client.tracking_uri), tags={_KIND_TAG: _TRAINS_MODELS}
            )
            return created
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another process was faster
                raise
            experiment = client.get_experiment_by_name(name)
    if experiment.lifecycle_stage != "active":
        raise ValueError(f"mlflow_experiment_name = {name} was deleted in MLflow: restore it or choose another name")
    experiment_id: str = experiment.experiment_id
    if _KIND_TAG not in experiment.tags:
        client.set_experiment_tag(experiment_id, _KIND_TAG, _TRAINS_MODELS)
    return experiment_id


def _artifact_location(uri: str) -> str | None:
    database = sqlite_file(uri)
    return None if database is None else (database.resolve().parent / "mlartifacts").as_uri()
