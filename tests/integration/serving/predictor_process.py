"""The real predictor in a process of its own, with its log in a file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from ivcp.serving.settings import PREFIX
from tests.ports import free_port

NAME, VERSION = "walks", "7"


@dataclass(frozen=True)
class RunningPredictor:
    """A predictor that answers at `url`."""

    url: str
    log: Path
    process_id: int

    def client(self, **options: Any) -> httpx.Client:
        """A plain HTTP client of it."""
        return httpx.Client(base_url=self.url, **{"trust_env": False, "timeout": 120.0} | options)

    def metrics(self) -> dict[str, float]:
        """What Prometheus would read, by name with labels."""
        text = httpx.get(f"{self.url}/metrics", trust_env=False, timeout=30.0).text
        lines = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, value in lines}

    def requests(self) -> list[dict[str, Any]]:
        """The lines of the log that tell of requests."""
        lines = (json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{"))
        return [line for line in lines if line["message"] == "request"]


@contextmanager
def running(
    model_dir: Path | str, log: Path, *, settings: Mapping[str, Any] | None = None
) -> Iterator[RunningPredictor]:
    """Starts one and waits until it is ready."""
    port, chosen = free_port(), {"num_decoders": 1} | dict(settings or {})
    command = [sys.executable, "-m", "ivcp.serving.server", "--model-dir", str(model_dir), "--port", str(port)]
    command += ["--model-name", NAME, "--model-version", VERSION]
    variables = {f"{PREFIX}{name.upper()}": str(value) for name, value in chosen.items()}
    environment = os.environ | {"IVCP_LOG_FORMAT": "json", "OMP_NUM_THREADS": "1"} | variables
    with (
        log.open("wb") as file,
        subprocess.Popen(command, stderr=file, stdout=file, env=environment) as process,
        ended(process),
    ):
        predictor = RunningPredictor(f"http://127.0.0.1:{port}", log, process.pid)
        wait_until_ready(predictor, process)
        yield predictor


@contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Ends a predictor behind the block, as a cluster does."""
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(60)
        finally:
            process.kill()


def wait_until_ready(predictor: RunningPredictor, process: subprocess.Popen[bytes]) -> None:
    """Waits until it answers."""
    deadline = time.monotonic() + 300
    while True:
        assert process.poll() is None, predictor.log.read_text()
        assert time.monotonic() < deadline, predictor.log.read_text()
        try:
            if httpx.get(f"{predictor.url}/readyz", trust_env=False, timeout=10.0).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
