"""The MLflow store of a run, and the client that speaks to it.

The store is `mlflow_tracking_uri`, else the environment's MLFLOW_TRACKING_URI, else a sqlite file in the runs folder
with its artifacts beside it. Everything goes through `MlflowClient`, so that no global state of mlflow changes and
no run of somebody else is ended. mlflow is imported where it is used: that takes seconds.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from ivcp.settings import RunConfig

DEFAULT_STORE = Path("runs")


def has_store(config: RunConfig) -> bool:
    """Whether a store is named; a file in the runs folder is one machine's own."""
    return _configured(config) is not None


def tracking_uri(config: RunConfig, *, default_store: Path = DEFAULT_STORE) -> str:
    """The MLflow store of this run: a server's address or a sqlite file."""
    return _configured(config) or f"sqlite:///{default_store.resolve()}/mlflow.db"


def _configured(config: RunConfig) -> str | None:
    return config.tracking.mlflow_tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or None


_HTTP = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""MLflow's own defaults make one call to a server that is away take four minutes, and to one that hangs sixteen."""
_LOCKED_SECONDS = 5.0
_opened: set[Path] = set()
"""Files whose tables are there, as this process knows."""


def connect(uri: str) -> Any:
    """mlflow's client of a store.

    Raises:
        OSError, sqlite3.Error: its sqlite file cannot be written, is locked, or its disk is full.
    """
    for name, value in _HTTP.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # set it to false to send usage data to MLflow's makers
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # of the view for GenAI: see `run_page`
    for noisy in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # it announces each retry of a request
    from mlflow import MlflowClient

    database = sqlite_file(uri)
    if database is None:
        return MlflowClient(tracking_uri=uri, registry_uri=uri)
    database.parent.mkdir(parents=True, exist_ok=True)
    with _alone_with_new(database):
        _check_writable(database)
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


def sqlite_file(uri: str) -> Path | None:
    """The file of a sqlite store; null for another one."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


@contextmanager
def _alone_with_new(database: Path) -> Iterator[None]:
    """Inside, no other process opens the file for its first time.

    mlflow makes the tables of a new file then, and processes that do so at once fail.
    """
    if database in _opened:
        yield
        return
    folder = os.open(database.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
        _opened.add(database)
    finally:
        os.close(folder)


def _check_writable(database: Path) -> None:
    """mlflow itself would try for minutes."""
    with closing(sqlite3.connect(database, timeout=_LOCKED_SECONDS, isolation_level=None)) as opened:
        opened.execute("BEGIN IMMEDIATE")
        opened.execute("ROLLBACK")
