from pathlib import Path

import pytest

from ivcp import tracking
from ivcp.settings import RunConfig, from_flat


def test_the_store_is_the_setting_then_the_environment_then_sqlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    setting = from_flat({"mlflow_tracking_uri": "http://mlflow:5000"})
    assert tracking.tracking_uri(RunConfig(), default_store=tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://other:5000")
    assert tracking.tracking_uri(RunConfig(), default_store=tmp_path) == "http://other:5000"
    assert tracking.tracking_uri(setting, default_store=tmp_path) == "http://mlflow:5000"
