"""MLflow runs: the one that a step logs to."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from ivcp.distributed.rank import is_owner
from ivcp.records import RUN_CONFIG_FILE
from ivcp.settings import RunConfig
from ivcp.tracking.client import DEFAULT_STORE, connect, sqlite_file, tracking_uri
from ivcp.tracking.outages import Outbox

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]


_BATCH = 100
"""MLflow's limit of parameters in one call."""


LONGEST_TAG = 5000


_LONGEST_VALUE = 500
"""MLflow's oldest limit of a parameter's value; the whole configuration is also logged as a file."""


class TrackedRun:
    """The MLflow run of a step, or none: then nothing is logged. An outage of MLflow ends nothing: see `Outbox`."""

    def __init__(self, uri: str | None = None, start: Callable[[Any], str] | None = None) -> None:
        """`start` gives the id of a run in the store `uri`; it is called again where that is away."""
        self._uri, self._start = uri or "", start
        self._outbox = Outbox(self._uri)
        self._client: Any = None
        self.run_id: str | None = None
        """Null where there is no run, and as long as it could not be started."""

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Logs numbers; `step` is the optimizer step of points of a curve."""
        now, points = int(time.time() * 1000), {name: float(value) for name, value in metrics.items()}
        self.do(lambda client, run_id: _log_points(client, run_id, points, time=now, step=step))

    def log_params(self, params: Mapping[str, Any], *, step_name: str) -> None:
        """Logs settings. One that the run has with another value is logged as `<step_name>.<key>`."""
        texts = {key: _text(value) for key, value in params.items()}
        self.do(lambda client, run_id: _log_texts(client, run_id, texts, step_name=step_name))

    def log_artifact(self, path: Path, *, folder: str | None = None) -> None:
        """Stores a picture, a report or another file with the run, in `folder` of its artifacts."""
        self.do(lambda client, run_id: client.log_artifact(run_id, str(path), folder))

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Sets tags of the run."""
        for key, value in tags.items():
            self.do(lambda client, run_id, key=key, value=value: client.set_tag(run_id, key, value))

    def do(self, call: Callable[..., None]) -> None:
        """Calls `call(client, run_id)`, now or when MLflow is back."""
        if self._start is not None:
            self._outbox.send(lambda: call(*self._started()))

    def close(self) -> None:
        """Hands in what waits, for the last time."""
        if self._start is not None:
            self._outbox.close()

    def _started(self) -> tuple[Any, str]:
        if self._client is None:
            self._client = connect(self._uri)
        if self.run_id is None:
            assert self._start is not None
            self.run_id = self._start(self._client)
        return self._client, self.run_id


def _log_points(client: Any, run_id: str, points: Mapping[str, float], *, time: int, step: int) -> None:
    from mlflow.entities import Metric

    metrics = [Metric(name, value, time, step) for name, value in points.items()]
    for start in range(0, len(metrics), _BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + _BATCH])


def _log_texts(client: Any, run_id: str, texts: Mapping[str, str], *, step_name: str) -> None:
    from mlflow.entities import Param

    logged = client.get_run(run_id).data.params
    free = {_free_key(key, text, logged, step_name): text for key, text in texts.items()}
    new = [Param(key, text) for key, text in free.items() if key not in logged]
    for start in range(0, len(new), _BATCH):
        client.log_batch(run_id, params=new[start : start + _BATCH])


@contextmanager
def tracked_run(config: RunConfig, *, step: str, default_store: Path = DEFAULT_STORE) -> Iterator[TrackedRun]:
    """The run that a step logs to, with the run's settings as parameters.

    Continues the run of `mlflow_run_id`, else that which the environment's MLFLOW_RUN_ID names, and leaves its final
    status to its owner; without one, a run of the step's own is started and ended. The tag `step.<step>` says how the
    step ended, and `step.<step>.error` why it failed. Nothing is logged where `report_to` does not name mlflow, nor on
    other ranks than 0.

    Raises:
        ValueError: the store has no run MLFLOW_RUN_ID, or the experiment was deleted.
    """
    if not is_owner() or "mlflow" not in config.train.report_to:
        yield TrackedRun()
        return
    given = config.tracking.mlflow_run_id or os.environ.get("MLFLOW_RUN_ID")

    def start(client: Any) -> str:
        return _existing_run(client, given) if given else create_run(client, config, step, {"ivcp.step": step})

    run = TrackedRun(tracking_uri(config, default_store=default_store), start)
    described = json.dumps(config.flat(), indent=2)
    run.log_params(config.flat(), step_name=step)
    run.do(lambda client, run_id: client.log_text(run_id, described, f"{step}/{RUN_CONFIG_FILE}"))
    status: RunStatus = "FAILED"
    try:
        yield run
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        raise
    except Exception as error:
        run.set_tags({f"step.{step}.error": f"{type(error).__name__}: {error}"[:LONGEST_TAG]})
        raise
    finally:
        run.set_tags({f"step.{step}": status})
        if not given:
            run.do(lambda client, run_id: client.set_terminated(run_id, status))
        run.close()


def create_run(client: Any, config: RunConfig, run_name: str, tags: Mapping[str, str]) -> str:
    """Starts a run in the experiment of the settings, and returns its id."""
    experiment_id = _experiment_id(client, config.tracking.mlflow_experiment_name)
    run = client.create_run(experiment_id, run_name=config.train.run_name or run_name, tags=dict(tags))
    run_id: str = run.info.run_id
    return run_id


def _existing_run(client: Any, run_id: str) -> str:
    from mlflow.exceptions import MlflowException

    try:
        client.get_run(run_id)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise ValueError(
            f"MLFLOW_RUN_ID = {run_id}, which cannot be read from {client.tracking_uri}: "
            f"point mlflow_tracking_uri at that run's store, or unset MLFLOW_RUN_ID ({error})"
        ) from error
    return run_id


def _experiment_id(client: Any, name: str) -> str:
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            created: str = client.create_experiment(name, artifact_location=_artifact_location(client.tracking_uri))
            return created
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another process was faster
                raise
            experiment = client.get_experiment_by_name(name)
    if experiment.lifecycle_stage != "active":
        raise ValueError(f"mlflow_experiment_name = {name} was deleted in MLflow: restore it or choose another name")
    experiment_id: str = experiment.experiment_id
    return experiment_id


def _artifact_location(uri: str) -> str | None:
    database = sqlite_file(uri)
    return None if database is None else (database.resolve().parent / "mlartifacts").as_uri()


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"


def _free_key(key: str, text: str, logged: Mapping[str, str], step_name: str) -> str:
    return key if logged.get(key, text) == text else f"{step_name}.{key}"
