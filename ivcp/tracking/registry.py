"""The registry of models: versions, and the alias of the champion."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

from ivcp.records.registered import DEPLOYED_TAG, PROMOTED_TAG, Champion, ModelVersionRef, RegisteredVersion
from ivcp.settings import RunConfig
from ivcp.storage import is_s3
from ivcp.tracking.client import DEFAULT_STORE, connect, sqlite_file, tracking_uri
from ivcp.tracking.outages import first_line, outages, patiently

T = TypeVar("T")

log = logging.getLogger(__name__)

WEIGHTS_TAG = "weights"
"""Tag of a model version: what tells its weights from those of another training."""


MODEL_DIR_TAG = "model_dir"
"""Tag of a model version: URI of its directory, where a server knows it by the run that made it."""


class RegistryError(RuntimeError):
    """MLflow's registry is away, or refuses: without it no model is registered, found or promoted."""


def register_model(
    model_dir: Path | str,
    *,
    config: RunConfig,
    metrics: Mapping[str, float],
    run_id: str | None,
    tags: Mapping[str, str],
    is_champion: bool = True,
    default_store: Path = DEFAULT_STORE,
) -> ModelVersionRef:
    """Makes a model directory the newest version of the registered model, which has the alias `challenger_alias` then;
    as the champion, it is promoted at once.

    The version points to the directory (a path or an s3:// URI); no weights are copied. A server takes no path: there
    it points to `folder_in_run`, for files that refer to it, and a tag has the path. `metrics` and `tags` become the
    version's tags. The same directory of the same run, which a repeated step registers again, stays one version.

    Raises:
        ValueError: a metric is not finite: it would decide about every later model.
        RegistryError: the registry is away, or refuses, as a server does a path without a `run_id`.
    """
    wrong = [f"{name} = {value}" for name, value in metrics.items() if not math.isfinite(value)]
    if wrong:
        raise ValueError(f"{model_dir} is not registered, its figures are not finite: {', '.join(wrong)}")
    uri = tracking_uri(config, default_store=default_store)
    name, source = config.registered_name, _source(model_dir)
    described = {key: repr(float(value)) for key, value in metrics.items()} | dict(tags)
    pointer = source
    if knows_by_run(uri, model_dir):
        if run_id is None:
            raise RegistryError(f"{model_dir} is not registered: {needs_run(uri)}")
        pointer = f"runs:/{run_id}/{folder_in_run(tags)}"
        described |= {MODEL_DIR_TAG: source}

    def register() -> ModelVersionRef:
        client = connect(uri)
        _ensure_registered_model(client, name)
        version = _newest_version(client, name, run_id)
        if version is None or not _is_same(version, source=source, run_id=run_id, weights=tags.get(WEIGHTS_TAG)):
            version = client.create_model_version(name, pointer, run_id=run_id, tags=described)
        made = ModelVersionRef(name=name, version=int(version.version), source=source)
        _set_tags(client, made, described)
        if str(_aliases(client, name).get(config.export.model_alias)) != str(made.version):
            client.set_registered_model_alias(name, config.export.challenger_alias, str(made.version))
        return made

    registered = _answered(register, uri, f"{model_dir} is not registered")
    return promote_model(registered, config=config, default_store=default_store) if is_champion else registered


def knows_by_run(uri: str, model_dir: Path | str) -> bool:
    """Whether the registry `uri` knows a model directory by the run that made it: a server refuses paths."""
    return uri.startswith(("http://", "https://")) and not is_s3(model_dir)


def folder_in_run(tags: Mapping[str, str]) -> str:
    """Where the run of a version with these tags has the files, in MLflow's form, that refer to its directory."""
    return f"registered/{tags.get(WEIGHTS_TAG, 'model')}"


def needs_run(uri: str) -> str:
    """Why a folder cannot be registered without a run, and what to do."""
    return (
        f"the MLflow server at {uri} takes a folder by the run that made it alone, and none is logged: set "
        "report_to: mlflow, or models_uri: s3://…"
    )


def promote_model(
    registered: ModelVersionRef,
    *,
    config: RunConfig,
    deployed_to: str | None = None,
    default_store: Path = DEFAULT_STORE,
) -> ModelVersionRef:
    """Moves the alias `model_alias` to a registered version; `deployed_to` says where it serves now.

    The version notes when, and is no challenger any more.

    Raises:
        RegistryError: the registry is away, or refuses.
    """
    uri, alias = tracking_uri(config, default_store=default_store), config.export.model_alias

    def promote() -> None:
        client = connect(uri)
        now = datetime.now(UTC).isoformat(timespec="microseconds")
        _set_tags(client, registered, {PROMOTED_TAG: now} | ({DEPLOYED_TAG: deployed_to} if deployed_to else {}))
        client.set_registered_model_alias(registered.name, alias, str(registered.version))
        challenger = _version_with_alias(client, registered.name, config.export.challenger_alias)
        if challenger is not None and int(challenger.version) == registered.version:
            client.delete_registered_model_alias(registered.name, config.export.challenger_alias)

    _answered(promote, uri, f"{alias} of {registered.name} does not move to version {registered.version}")
    log.info("%s of %s is version %d", alias, registered.name, registered.version)
    return registered.model_copy(update={"alias": alias})


def find_champion(config: RunConfig, *, default_store: Path = DEFAULT_STORE) -> Champion | None:
    """The registered version with the alias `model_alias`; null where there is none, or no store yet.

    Raises:
        RegistryError: the registry is away, or refuses.
    """
    uri = tracking_uri(config, default_store=default_store)
    database = sqlite_file(uri)
    if database is not None and not database.exists():
        return None
    name = config.registered_name
    version = _answered(
        lambda: _version_with_alias(connect(uri), name, config.export.model_alias),
        uri,
        f"it is not known which version of {name} is the {config.export.model_alias}",
    )
    if version is None:
        return None
    return Champion(**_known_of(version))


def registered_versions(config: RunConfig, *, default_store: Path = DEFAULT_STORE) -> list[RegisteredVersion]:
    """All versions of the registered model of these settings, the newest first; none where there is no store yet.

    Raises:
        RegistryError: the registry is away, or refuses.
    """
    uri, name = tracking_uri(config, default_store=default_store), config.registered_name
    database = sqlite_file(uri)
    if database is not None and not database.exists():
        return []

    def read() -> list[RegisteredVersion]:
        client, found, page = connect(uri), [], None
        aliases = _aliases(client, name)
        while True:
            some = client.search_model_versions(_named(name), order_by=["version_number DESC"], page_token=page)
            found += some
            page = some.token
            if not page:
                return [_with_aliases(version, aliases) for version in found]

    return _answered(read, uri, f"the versions of {name} are not known")


def _with_aliases(version: Any, aliases: Mapping[str, str]) -> RegisteredVersion:
    own = tuple(sorted(alias for alias, of in aliases.items() if str(of) == str(version.version)))
    return RegisteredVersion(**_known_of(version) | {"aliases": own})


def _known_of(version: Any) -> dict[str, Any]:
    source = _source_of(version)
    return {
        "name": version.name,
        "version": int(version.version),
        "model_dir": source if is_s3(source) else unquote(source.removeprefix("file://")),
        "tags": dict(version.tags),
        "run_id": version.run_id or None,
        "registered_at": datetime.fromtimestamp(version.creation_timestamp / 1000, UTC).isoformat(timespec="seconds"),
    }


def _source_of(version: Any) -> str:
    """URI of the directory of a version."""
    return str(version.tags.get(MODEL_DIR_TAG) or version.source)


def _answered(call: Callable[[], T], uri: str, what: str) -> T:
    try:
        return patiently(call)
    except outages() as error:
        raise RegistryError(
            f"{what}: MLflow's registry at {uri} does not do its part: {first_line(error)}. Repeat the step when it "
            "answers"
        ) from error


def _ensure_registered_model(client: Any, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _newest_version(client: Any, name: str, run_id: str | None) -> Any | None:
    """The newest version of a model; with `run_id`, the newest of that run: others may have registered since."""
    wanted = _named(name) + (f" and run_id = '{run_id}'" if run_id else "")
    found = client.search_model_versions(wanted, max_results=1, order_by=["version_number DESC"])
    return found[0] if found else None


def _named(name: str) -> str:
    mark = '"' if "'" in name else "'"
    return f"name = {mark}{name}{mark}"


def _is_same(version: Any, *, source: str, run_id: str | None, weights: str | None) -> bool:
    """Whether a version is this model of this run, which a repeated step registers again."""
    if _source_of(version) != source:
        return False
    known = version.tags.get(WEIGHTS_TAG)
    is_same = (version.run_id or None) == run_id and (
        weights in (None, known) or (known is None and run_id is not None)
    )
    if not is_same:
        log.warning(
            "the files of version %s of %s stood in %s too, and are replaced now: there is no way back to it; another "
            "export_dir for each model, or models_uri, keeps them",
            *(version.version, version.name, source),
        )
    return is_same


def _set_tags(client: Any, version: ModelVersionRef, tags: Mapping[str, str]) -> None:
    for key, value in tags.items():
        client.set_model_version_tag(version.name, str(version.version), key, value)


def _version_with_alias(client: Any, name: str, alias: str) -> Any | None:
    aliases = _aliases(client, name)
    return client.get_model_version(name, str(aliases[alias])) if alias in aliases else None


def _aliases(client: Any, name: str) -> dict[str, str]:
    """The version that each alias of a registered model stands for; none of one that nobody has registered."""
    from mlflow.exceptions import MlflowException

    try:
        return dict(client.get_registered_model(name).aliases)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return {}
        raise


def _source(model_dir: Path | str) -> str:
    return str(model_dir) if is_s3(model_dir) else Path(model_dir).resolve().as_uri()
