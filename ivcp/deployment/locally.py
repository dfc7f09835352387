"""A deployment on this machine: the predictor as a process, checked with one clip."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from ivcp.deployment.smoke_test import REQUEST_SECONDS, DeploymentError, Smoke, SmokeOutcome, ask, check_answer
from ivcp.records import Record
from ivcp.settings import RunConfig

log = logging.getLogger(__name__)

DEPLOYMENT_FILE = "deployment.json"
LOG_FILE = "predictor.log"
PID_FILE = "predictor.pid"

_POLL_SECONDS = 0.2
_STOP_SECONDS = 35.0
_LOG_LINES = 20
_kept: list[subprocess.Popen[bytes]] = []
"""Predictors that outlive this process: a reference keeps `Popen` from warning that they still run."""


class DeploymentResult(Record):
    """`deployment.json`."""

    url: str
    model_dir: str
    pid: int | None
    """The predictor's process; null when it was stopped after the check."""
    log: str
    seconds_until_ready: float
    smoke: SmokeOutcome | None
    """Null when evaluation found no clip that can be compared."""

    @property
    def summary(self) -> str:
        """The result in a few words."""
        state = f"running at {self.url} (process {self.pid})" if self.pid else "checked and stopped"
        if self.smoke is None:
            return f"{state}, ready after {self.seconds_until_ready:.1f} s; no clip to compare"
        return f"{state}, {self.smoke.summary}"


def deploy_local(config: RunConfig, *, model_dir: Path, smoke_clip: Smoke | None, output_dir: Path) -> DeploymentResult:
    """Starts the predictor, asks it for `smoke_clip`, and stops it, or leaves it running with `serve_keep`.

    `output_dir` receives `deployment.json`, the predictor's log, and the process id of one that is left running.

    Raises:
        DeploymentError: it does not become ready within `serve_timeout_seconds`, or its answer is not evaluation's.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    host, port = config.serving.serve_host, config.serving.serve_port or free_port(config.serving.serve_host)
    url, log_path = f"http://{_reachable(host)}:{port}", output_dir / LOG_FILE
    (output_dir / PID_FILE).unlink(missing_ok=True)
    command = [sys.executable, "-m", "ivcp.serving.server", "--model-dir", str(model_dir.resolve())]
    command += ["--host", host, "--port", str(port)]
    if config.model.trust_remote_code:
        command.append("--trust-remote-code")
    keep = config.serving.serve_keep
    with (
        httpx.Client(base_url=url, trust_env=False, timeout=REQUEST_SECONDS) as client,
        _process(command, log_path=log_path, keep=keep) as process,
    ):
        ready_after = _wait_until_ready(
            process, client, log_path=log_path, timeout_seconds=config.serving.serve_timeout_seconds
        )
        smoke = check_answer(ask(client, smoke_clip), smoke_clip, model_dir=model_dir) if smoke_clip else None
    result = DeploymentResult(
        url=url,
        model_dir=str(model_dir),
        pid=process.pid if keep else None,
        log=str(log_path),
        seconds_until_ready=ready_after,
        smoke=smoke,
    )
    result.write(output_dir / DEPLOYMENT_FILE)
    if keep:
        (output_dir / PID_FILE).write_text(f"{process.pid}\n", encoding="utf-8")
    log.info("%s", result.summary)
    return result


def free_port(host: str) -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def _process(command: list[str], *, log_path: Path, keep: bool) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a process in a session of its own; ends it after the block, unless the block succeeds and `keep` is set."""
    with log_path.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    succeeded = False
    try:
        yield process
        succeeded = True
    finally:
        if succeeded and keep:
            _kept.append(process)
        else:
            _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        log.warning("predictor %d did not stop within %.0f s and was killed", process.pid, _STOP_SECONDS)
        process.kill()
        process.wait()


def _wait_until_ready(
    process: subprocess.Popen[bytes], client: httpx.Client, *, log_path: Path, timeout_seconds: float
) -> float:
    started = time.monotonic()
    while time.monotonic() - started < timeout_seconds:
        if process.poll() is not None:
            raise DeploymentError(
                f"the predictor ended with exit code {process.returncode} before it was ready:\n{_tail(log_path)}"
            )
        if _is_ready(client):
            return time.monotonic() - started
        time.sleep(_POLL_SECONDS)
    raise DeploymentError(
        f"the predictor is not ready after serve_timeout_seconds = {timeout_seconds:g}; its last lines:\n"
        f"{_tail(log_path)}"
    )


def _is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz", timeout=5.0).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def _tail(path: Path) -> str:
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:])


def _reachable(host: str) -> str:
    return "127.0.0.1" if host == "0.0.0.0" else host
