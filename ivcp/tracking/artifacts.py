"""Models that lie in MLflow: what a version of the registry points to, and files that only MLflow hands out."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

from ivcp.tracking.client import connect
from ivcp.tracking.outages import first_line, outages, patiently
from ivcp.tracking.registry import RegistryError

T = TypeVar("T")

log = logging.getLogger(__name__)

_REGISTERED = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>.+)|/(?P<version>\d+))")


def registered_source(address: str, uri: str) -> tuple[int, str]:
    """The version that `models:/name@alias` or `models:/name/3` names in the registry `uri`, and where its files lie.

    Raises:
        RegistryError: there is no such model, version or alias, or the registry is away.
        ValueError: it is no such address.
    """
    found = _REGISTERED.fullmatch(address)
    if found is None:
        raise ValueError(f"{address}: expected models:/name@alias or models:/name/3")

    def ask() -> tuple[int, str]:
        client = connect(uri)
        version = found["version"] or client.get_model_version_by_alias(found["name"], found["alias"]).version
        return int(version), client.get_model_version_download_uri(found["name"], str(version))

    version, source = _answered(ask, uri, f"{address} is not found")
    return version, unquote(source.removeprefix("file://")) if source.startswith("file://") else source


def artifact_files(source: str, uri: str) -> dict[str, int]:
    """Bytes of each file below an artifact's address, by its path there; `uri` is the store that hands them out."""

    def ask() -> dict[str, int]:
        repository = _repository(source, uri)
        return dict(_below(repository, None))

    return _answered(ask, uri, f"{source} is not listed")


def download_artifact_files(source: str, uri: str, files: dict[str, int], folder: Path) -> None:
    """Writes `files`, as `artifact_files` lists them, below `folder`; what is there in full already is kept.

    Raises:
        RegistryError: the store does not hand them out, or not in full.
    """

    def ask() -> None:
        repository = _repository(source, uri)
        for name, num_bytes in files.items():
            target = folder / name
            if not (target.is_file() and target.stat().st_size == num_bytes):
                repository.download_artifacts(name, dst_path=str(folder))

    _answered(ask, uri, f"{source} is not read")
    for name, num_bytes in files.items():
        if (arrived := (folder / name).stat().st_size) != num_bytes:
            raise RegistryError(f"{source}: {arrived:,} of {num_bytes:,} bytes of {name} came from {uri}: try again")


def fetch_run_file(run_id: str, path: str, uri: str, folder: Path) -> Path | None:
    """An artifact of a run, written below `folder`; null where the run has none of that name, or the store is away."""

    def ask() -> Path:
        return Path(connect(uri).download_artifacts(run_id, path, str(folder)))

    try:
        return patiently(ask)
    except outages() as error:
        log.info("%s of MLflow run %s is not read: %s", path, run_id, first_line(error))
        return None


def _repository(source: str, uri: str) -> Any:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    connect(uri)  # limits how long mlflow tries
    return get_artifact_repository(source, tracking_uri=uri)


def _below(repository: Any, path: str | None) -> Iterator[tuple[str, int]]:
    for found in repository.list_artifacts(path):
        if found.is_dir:
            yield from _below(repository, found.path)
        else:
            yield found.path, found.file_size


def _answered(call: Callable[[], T], uri: str, what: str) -> T:
    try:
        return patiently(call)
    except outages() as error:
        raise RegistryError(
            f"{what}: MLflow at {uri} answers: {first_line(error)}. Check the name, its version or alias, and "
            "mlflow_tracking_uri or MLFLOW_TRACKING_URI"
        ) from error
