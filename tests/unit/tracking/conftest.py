from pathlib import Path
from typing import Any

import pytest

from ivcp import tracking
from ivcp.settings import RunConfig
from ivcp.tracking import client


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for all tests of MLflow: creating its tables takes seconds."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch):
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "RANK"):
        monkeypatch.delenv(name, raising=False)


def mlflow_run(store: Path, run_id: str) -> Any:
    """A run as the store has it."""
    return client.connect(tracking.tracking_uri(RunConfig(), default_store=store)).get_run(run_id)
