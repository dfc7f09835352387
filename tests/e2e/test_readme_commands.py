"""The README's commands under "Look at it", as they stand there, on the last run of `make demo`."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.ports import free_port

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "160"}


@pytest.fixture(scope="module", autouse=True)
def _demo_has_run():
    summary = ROOT / "runs" / "latest" / "summary.json"
    if not summary.is_file() or json.loads(summary.read_text())["clips"].get("test") != 300:
        pytest.skip("the last run is not that of `make demo`")


def command(start: str) -> str:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    return next(line for line in re.findall(r"^\S.*$", readme, re.MULTILINE) if line.startswith(start))


@contextmanager
def running(line: str, url: str) -> Iterator[None]:
    process = subprocess.Popen(
        shlex.split(line),
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for(url, process)
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # mlflow's workers are its children
        process.wait(60)


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        assert process.poll() is None, f"ended with {process.returncode}"
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    raise AssertionError(f"{url} does not answer")


@pytest.mark.slow
def test_predict():
    shown = subprocess.run(
        ["bash", "-c", command("ivcp predict --model-dir runs/latest")],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert shown.returncode == 0, shown.stderr
    rows = [line for line in shown.stdout.splitlines() if "clap_" in line]
    assert len(rows) > 20
    assert sum("│ clap " in row for row in rows) >= 0.7 * len(rows)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_serve_and_ask():
    port = str(free_port())
    serve = command("ivcp serve --model-dir").replace("8080", port)
    with running(serve, f"http://127.0.0.1:{port}/readyz"):
        answered = subprocess.run(
            shlex.split(command("curl ").replace("8080", port)),
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )

    answer = json.loads(answered.stdout)
    assert answer["label_name"] == "clap"
    assert answer["frames"] == 8


@pytest.mark.slow
def test_mlflow_shows_the_run():
    port = str(free_port())
    with running(f"{command('mlflow ui')} --port {port}", f"http://127.0.0.1:{port}/health"):
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/api/2.0/mlflow/registered-models/alias?name=ivcp-action-classifier&alias=champion"
        )
        with urllib.request.urlopen(request, timeout=30) as reply:
            champion = json.load(reply)["model_version"]

    assert champion["version"]
