import subprocess
import sys
import time
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


FIRST_USE = """
import sys, time
from ivcp.tracking.client import connect
from mlflow import MlflowClient
while time.time() < float(sys.argv[2]):
    time.sleep(0.001)
print(len(connect(sys.argv[1]).search_experiments()))
"""


def test_a_new_store_is_made_once_by_processes_that_start_at_once(tmp_path: Path):
    uri, start = f"sqlite:///{tmp_path}/mlflow.db", str(time.time() + 12)
    commands = [[sys.executable, "-c", FIRST_USE, uri, start] for _ in range(4)]
    processes = [subprocess.Popen(each, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for each in commands]
    ended = [(process.communicate(timeout=120), process.returncode) for process in processes]
    assert [(out.strip(), code) for (out, _), code in ended] == [("1", 0)] * 4, [err[-500:] for (_, err), _ in ended]
