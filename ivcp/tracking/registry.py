"""The registry of models: versions, and the alias of the champion."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ivcp.records.registered import Champion, ModelVersionRef
from ivcp.settings import RunConfig
from ivcp.storage import is_s3
from ivcp.tracking.client import DEFAULT_STORE, connect, sqlite_file, tracking_uri


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

    Raises:
        ValueError: a metric is not finite: it would decide about every later model.
    """
    wrong = [f"{name} = {value}" for name, value in metrics.items() if not math.isfinite(value)]
    if wrong:
        raise ValueError(f"{model_dir} is not registered, its figures are not finite: {', '.join(wrong)}")
    client = connect(tracking_uri(config, default_store=default_store))
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
    database = sqlite_file(uri)
    if database is not None and not database.exists():
        return None
    name = config.export.registered_model_name
    version = _version_with_alias(connect(uri), name, config.export.model_alias)
    if version is None:
        return None
    model_dir = version.source if is_s3(version.source) else unquote(version.source.removeprefix("file://"))
    return Champion(name=name, version=int(version.version), model_dir=model_dir, tags=dict(version.tags))


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
