"""The MLflow store of a run, and the client that speaks to it.

The store is `mlflow_tracking_uri`, else the environment's MLFLOW_TRACKING_URI, else a sqlite file in the runs folder
with its artifacts beside it. Everything goes through `MlflowClient`, so that no global state of mlflow changes and
no run of somebody else is ended. mlflow is imported where it is used: that takes seconds.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from ivcp.settings import RunConfig

DEFAULT_STORE = Path("runs")


def tracking_uri(config: RunConfig, *, default_store: Path = DEFAULT_STORE) -> str:
    """The MLflow store of this run: a server's address or a sqlite file."""
    configured = config.tracking.mlflow_tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    return configured or f"sqlite:///{default_store.resolve()}/mlflow.db"


def connect(uri: str) -> Any:
    """mlflow's client of a store."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # set it to false to send usage data to MLflow's makers
    for noisy in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    from mlflow import MlflowClient

    database = sqlite_file(uri)
    if database is not None:
        database.parent.mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def sqlite_file(uri: str) -> Path | None:
    """The file of a sqlite store; null for another one."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None
