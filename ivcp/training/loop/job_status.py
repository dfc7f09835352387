"""Tells Kubeflow Trainer how far a TrainJob is: its `status.trainerStatus`, which kubectl and the launcher show.

A Trainer whose feature gate TrainJobStatus is on (2.2 and 2.3 have it, off by default) puts three variables into the
pods: the address that takes reports over HTTPS, the file with its certificate, and the file with a token that changes.
Reports are sent by a thread of their own, the latest only: no answer, however late or bad, costs a step anything.
transformers has a callback for the same; it waits for each answer, up to 5 seconds in 10, tells 100 % of a training
that was interrupted, and takes the steps before a resumption for steps of this run. It is left out.
"""

from __future__ import annotations

import json
import logging
import math
import os
import ssl
import threading
import time
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

log = logging.getLogger(__name__)

_URL, _CERTIFICATE, _TOKEN = (f"KUBEFLOW_TRAINER_SERVER_{name}" for name in ("URL", "CA_CERT", "TOKEN"))
_PAUSE_SECONDS = 5.0
"""Between two reports, as Trainer's documentation asks for."""
_ANSWER_SECONDS = 5.0
_LAST_REPORT_SECONDS = 5.0
"""How long the end of the training waits for its report."""
_MOST_METRICS, _LONGEST_TEXT = 256, 64
"""The API server refuses more."""


class JobStatus:
    """Sends the latest of the statuses that it is told."""

    def __init__(self, url: str, *, token: Path, certificate: Path, pause_seconds: float = _PAUSE_SECONDS) -> None:
        self._url, self._token, self._certificate, self._pause = url, token, certificate, pause_seconds
        self._latest: dict[str, Any] | None = None
        self._told, self._ended = threading.Event(), threading.Event()
        self._complained = False
        self._thread = threading.Thread(target=self._send_all, name="trainer-status", daemon=True)
        self._thread.start()

    @classmethod
    def of_environment(cls) -> JobStatus | None:
        """Null where no Kubeflow Trainer asks for reports."""
        given = [os.environ.get(name) for name in (_URL, _CERTIFICATE, _TOKEN)]
        if not all(given):
            return None
        url, certificate, token = map(str, given)
        try:
            return cls(url, token=Path(token), certificate=Path(certificate))
        except RuntimeError as error:  # no new thread can be started
            log.info("Kubeflow Trainer is not told how far the training is: %s", error)
            return None

    def tell(self, status: dict[str, Any]) -> None:
        """Takes the place of what was not sent yet."""
        self._latest = status
        self._told.set()

    def close(self) -> None:
        """Sends what was told last; waits a little for it."""
        self._ended.set()
        self._told.set()
        self._thread.join(_LAST_REPORT_SECONDS)

    def _send_all(self) -> None:
        while True:
            self._told.wait()
            self._told.clear()
            status, self._latest = self._latest, None
            if status is not None:
                self._send(status)
            elif self._ended.is_set():
                return
            if self._ended.is_set():
                self._told.set()
            else:
                self._ended.wait(self._pause)

    def _send(self, status: dict[str, Any]) -> None:
        try:
            request = urllib.request.Request(
                self._url,
                data=json.dumps({"trainerStatus": status}).encode(),
                headers={
                    "Authorization": f"Bearer {self._token.read_text(encoding='utf-8').strip()}",
                    "Content-Type": "application/json",
                },
            )
            context = ssl.create_default_context(cafile=str(self._certificate))
            # It is a service of the cluster: the proxy to the world outside does not know it.
            opener = urllib.request.build_opener(
                urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
            )
            opener.open(request, timeout=_ANSWER_SECONDS).close()
        except (OSError, ValueError) as error:  # URLError and HTTPError, ssl.SSLError and a missing file are OSErrors
            if not self._complained:
                self._complained = True
                log.info("Kubeflow Trainer is not told how far the training is (%s); the training goes on", error)


class TellJobStatus(TrainerCallback):  # type: ignore[misc]
    """Tells Kubeflow Trainer the share of steps done, the time left and the last row's numbers, from rank 0."""

    def __init__(self) -> None:
        self._channel: JobStatus | None = None
        self._numbers: dict[str, float] = {}
        self._began, self._first_step = 0.0, 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called by transformers before the first step, or behind the checkpoint that a run goes on from."""
        self._began, self._first_step = time.monotonic(), state.global_step
        if state.is_world_process_zero:
            self._channel = JobStatus.of_environment()
        self._tell(state)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called by transformers behind each optimizer step."""
        self._tell(state)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Called by transformers with the row it has just logged: `StepMeter`'s numbers are in it."""
        if self._channel is not None:
            self._numbers |= {name: float(value) for name, value in (logs or {}).items() if _is_number(value)}

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called by transformers behind the last step; an interrupted training is as far as it is."""
        self._tell(state)
        if self._channel is not None:
            self._channel.close()

    def _tell(self, state: Any) -> None:
        if self._channel is None:
            return
        seconds = time.monotonic() - self._began
        self._channel.tell(describe_status(state, self._numbers, seconds=seconds, first_step=self._first_step))


def describe_status(state: Any, numbers: Mapping[str, float], *, seconds: float, first_step: int) -> dict[str, Any]:
    """Trainer's `trainerStatus` after some seconds of a run that began behind `first_step`.

    A stage that trains in a way of its own says no number of steps; the share and the time left are unknown then.
    """
    status: dict[str, Any] = {"lastUpdatedTime": datetime.now(UTC).isoformat(timespec="seconds")}
    if state.max_steps > 0:
        done, to_do = state.global_step - first_step, max(0, state.max_steps - state.global_step)
        status["progressPercentage"] = min(100, 100 * state.global_step // state.max_steps)
        if done > 0:
            status["estimatedRemainingSeconds"] = round(seconds / done * to_do)
    named = {"step": state.global_step, **numbers}
    status["metrics"] = [
        {"name": name[:_LONGEST_TEXT], "value": f"{value:.6g}"} for name, value in list(named.items())[:_MOST_METRICS]
    ]
    return status


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
