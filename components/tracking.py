"""MLflow: the run that steps log to, and the registry of models.

The store is `mlflow_tracking_uri`, else the environment's MLFLOW_TRACKING_URI, else a sqlite file in the runs folder
with its artifacts beside it. Everything goes through `MlflowClient`, so that no global state of mlflow changes and
no run of somebody else is ended. mlflow is imported where it is used: that takes seconds.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

from components.artifacts import RUN_CONFIG_FILE, Record
from components.config import RunConfig
from components.storage import is_s3

log = logging.getLogger(__name__)

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]
DEFAULT_STORE = Path("runs")
TOP1_TAG = "top1_accuracy"
TEST_FINGERPRINT_TAG = "test_fingerprint"
PIPELINE_RUN_TAG = "ivcp.pipeline_run"
"""Tag of an MLflow run with the id of its pipeline run."""
UNCHANGED_TAG = "ivcp.unchanged_since"
"""Tag of an MLflow run that trained nothing: the champion that is as new."""

_BATCH = 100
"""MLflow's limit of parameters in one call."""
_LONGEST_TAG = 5000
_LONGEST_VALUE = 500
"""MLflow's oldest limit of a parameter's value; the whole configuration is logged as a file besides."""


class ModelVersionRef(Record):
    """A registered model version."""

    name: str
    version: int
    alias: str
    source: str
    """URI of the model directory."""


class Champion(Record):
    """The registered version that bears the alias."""

    name: str
    version: int
    model_dir: str
    """Path or s3:// URI of the model directory."""
    tags: dict[str, str]
    """What was recorded at registration: metrics, fingerprints."""

    @property
    def top1_accuracy(self) -> float | None:
        """The recorded accuracy; null for a version that was registered without one."""
        recorded = self.tags.get(TOP1_TAG)
        return None if recorded is None else float(recorded)

    @property
    def test_fingerprint(self) -> str | None:
        """Which test split that accuracy is from."""
        return self.tags.get(TEST_FINGERPRINT_TAG)


class TrackedRun:
    """The MLflow run of a step, or none (`run_id` is null): then nothing is logged."""

    def __init__(self, client: Any | None, run_id: str | None) -> None:
        self._client = client
        self.run_id = run_id

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Logs numbers; `step` is the optimizer step of points of a curve."""
        if self._client is None:
            return
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        points = [Metric(name, float(value), now, step) for name, value in metrics.items()]
        for start in range(0, len(points), _BATCH):
            self._client.log_batch(self.run_id, metrics=points[start : start + _BATCH])

    def log_params(self, params: Mapping[str, Any], *, step_name: str) -> None:
        """Logs settings. One that the run has with another value is logged as `<step_name>.<key>`."""
        if self._client is None:
            return
        from mlflow.entities import Param

        texts = {key: _text(value) for key, value in params.items()}
        logged = self._client.get_run(self.run_id).data.params
        texts = {_free_key(key, text, logged, step_name): text for key, text in texts.items()}
        new = [Param(key, text) for key, text in texts.items() if key not in logged]
        for start in range(0, len(new), _BATCH):
            self._client.log_batch(self.run_id, params=new[start : start + _BATCH])

    def log_artifact(self, path: Path, *, folder: str | None = None) -> None:
        """Stores a picture, a report or another file with the run, in `folder` of its artifacts."""
        if self._client is not None:
            self._client.log_artifact(self.run_id, str(path), folder)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Sets tags of the run."""
        if self._client is not None:
            for key, value in tags.items():
                self._client.set_tag(self.run_id, key, value)


@contextmanager
def tracked_run(config: RunConfig, *, step: str, default_store: Path = DEFAULT_STORE) -> Iterator[TrackedRun]:
    """The run that a step logs to, with the run's settings as parameters.

    Continues the run that the environment's MLFLOW_RUN_ID names, else that of `mlflow_run_id`, and leaves its final
    status to its owner; without one, a run of the step's own is started and ended. The tag `step.<step>` says how the
    step ended, and `step.<step>.error` why it failed. Nothing is logged where `report_to` does not name mlflow, nor on
    other ranks than 0.

    Raises:
        ValueError: the store has no run MLFLOW_RUN_ID.
    """
    if int(os.environ.get("RANK", "0")) != 0 or "mlflow" not in config.train.report_to:
        yield TrackedRun(None, None)
        return
    client = _client(tracking_uri(config, default_store=default_store))
    given = os.environ.get("MLFLOW_RUN_ID") or config.tracking.mlflow_run_id
    run_id = _existing_run(client, given) if given else _create_run(client, config, step, {"ivcp.step": step})
    run = TrackedRun(client, run_id)
    status: RunStatus = "FAILED"
    try:
        run.log_params(config.flat(), step_name=step)
        client.log_text(run_id, json.dumps(config.flat(), indent=2), f"{step}/{RUN_CONFIG_FILE}")
        yield run
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        raise
    except Exception as error:
        run.set_tags({f"step.{step}.error": f"{type(error).__name__}: {error}"[:_LONGEST_TAG]})
        raise
    finally:
        run.set_tags({f"step.{step}": status})
        if not given:
            client.set_terminated(run_id, status)


def start_pipeline_run(
    config: RunConfig,
    *,
    default_store: Path = DEFAULT_STORE,
    run_name: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> str:
    """Starts the one run that all steps of a pipeline run log to, and returns its id for MLFLOW_RUN_ID."""
    client = _client(tracking_uri(config, default_store=default_store))
    return _create_run(client, config, run_name or config.train.run_name or "pipeline", tags or {})


def open_pipeline_run(config: RunConfig, *, pipeline_run: str, run_name: str) -> str:
    """The one MLflow run of a pipeline run, by that run's id; it is started where there is none yet.

    A step that is repeated finds what it started before.
    """
    found = find_pipeline_run(config, pipeline_run)
    if found is not None:
        return found.info.run_id  # type: ignore[no-any-return]
    return start_pipeline_run(config, run_name=run_name, tags={PIPELINE_RUN_TAG: pipeline_run})


def find_pipeline_run(config: RunConfig, pipeline_run: str) -> Any | None:
    """mlflow's `Run` that `open_pipeline_run` started for a pipeline run; null where there is none."""
    client = _client(tracking_uri(config))
    experiment = client.get_experiment_by_name(config.tracking.mlflow_experiment_name)
    if experiment is None:
        return None
    wanted = f"tags.`{PIPELINE_RUN_TAG}` = '{pipeline_run}'"
    runs = client.search_runs([experiment.experiment_id], filter_string=wanted, max_results=1)
    return runs[0] if runs else None


def finish_pipeline_run(
    run_id: str, status: RunStatus, *, config: RunConfig, default_store: Path = DEFAULT_STORE
) -> None:
    """Gives the run of `start_pipeline_run` its final status."""
    _client(tracking_uri(config, default_store=default_store)).set_terminated(run_id, status)


def register_model(
    model_dir: Path | str,
    *,
    config: RunConfig,
    metrics: Mapping[str, float],
    run_id: str | None,
    tags: Mapping[str, str],
    default_store: Path = DEFAULT_STORE,
) -> ModelVersionRef:
    """Makes a model directory the newest version of the registered model, and moves the alias to it.

    The version points to the directory (a path or an s3:// URI); no weights are copied. `metrics` and `tags` become
    the version's tags. The same directory of the same run, which a repeated step registers again, stays one version.
    """
    client = _client(tracking_uri(config, default_store=default_store))
    name, alias, source = config.export.registered_model_name, config.export.model_alias, _source(model_dir)
    _ensure_registered_model(client, name)
    current = _version_with_alias(client, name, alias)
    if current is not None and (current.source, current.run_id or None) == (source, run_id):
        version = current
    else:
        version = client.create_model_version(name, source, run_id=run_id)
    for key, value in ({key: repr(float(value)) for key, value in metrics.items()} | dict(tags)).items():
        client.set_model_version_tag(name, str(version.version), key, value)
    client.set_registered_model_alias(name, alias, str(version.version))
    return ModelVersionRef(name=name, version=int(version.version), alias=alias, source=source)


def find_champion(config: RunConfig, *, default_store: Path = DEFAULT_STORE) -> Champion | None:
    """The registered version with the alias `model_alias`; null where there is none, or no store yet."""
    uri = tracking_uri(config, default_store=default_store)
    database = _sqlite_file(uri)
    if database is not None and not database.exists():
        return None
    name = config.export.registered_model_name
    version = _version_with_alias(_client(uri), name, config.export.model_alias)
    if version is None:
        return None
    model_dir = version.source if is_s3(version.source) else unquote(version.source.removeprefix("file://"))
    return Champion(name=name, version=int(version.version), model_dir=model_dir, tags=dict(version.tags))


def tracking_uri(config: RunConfig, *, default_store: Path = DEFAULT_STORE) -> str:
    """The MLflow store of this run: a server's address or a sqlite file."""
    configured = config.tracking.mlflow_tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    return configured or f"sqlite:///{default_store.resolve()}/mlflow.db"


def _client(uri: str) -> Any:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # set it to false to send usage data to MLflow's makers
    for noisy in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    from mlflow import MlflowClient

    database = _sqlite_file(uri)
    if database is not None:
        database.parent.mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _sqlite_file(uri: str) -> Path | None:
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def _create_run(client: Any, config: RunConfig, run_name: str, tags: Mapping[str, str]) -> str:
    experiment_id = _experiment_id(client, config.tracking.mlflow_experiment_name)
    run = client.create_run(experiment_id, run_name=config.train.run_name or run_name, tags=dict(tags))
    run_id: str = run.info.run_id
    return run_id


def _existing_run(client: Any, run_id: str) -> str:
    from mlflow.exceptions import MlflowException

    try:
        client.get_run(run_id)
    except MlflowException as error:
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
    database = _sqlite_file(uri)
    return None if database is None else (database.resolve().parent / "mlartifacts").as_uri()


def _ensure_registered_model(client: Any, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _version_with_alias(client: Any, name: str, alias: str) -> Any | None:
    from mlflow.exceptions import MlflowException

    try:
        aliases = client.get_registered_model(name).aliases
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    return client.get_model_version(name, str(aliases[alias])) if alias in aliases else None


def _source(model_dir: Path | str) -> str:
    return str(model_dir) if is_s3(model_dir) else Path(model_dir).resolve().as_uri()


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"


def _free_key(key: str, text: str, logged: Mapping[str, str], step_name: str) -> str:
    return key if logged.get(key, text) == text else f"{step_name}.{key}"
