"""What is to be told to MLflow, kept while MLflow is away: an outage costs a run some waiting and nothing else."""

from __future__ import annotations

import json
import logging
import os
import re
import sqlite3
import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

log = logging.getLogger(__name__)

_PAUSE_SECONDS = 30.0
_PAUSE_PER_SECOND = 10.0
"""After a call that failed: no more than a tenth of the time is spent with waiting for a server that hangs."""
_PATIENCE_SECONDS = 180.0
"""For a server that restarts."""
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 2.0, 20.0
_PASSING = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED")
_REFUSED = ("INVALID_PARAMETER_VALUE", "RESOURCE_ALREADY_EXISTS")
"""What the server would answer another time as well."""


def outages() -> tuple[type[Exception], ...]:
    """What MLflow's client raises where server, database, disk or artifact store do not do their part."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    # A login page in the place of an answer is no JSON; errors of `requests` are OSErrors.
    of_answers: tuple[type[Exception], ...] = (MlflowException, OSError, json.JSONDecodeError)
    return (*of_answers, SQLAlchemyError, sqlite3.Error, Boto3Error, BotoCoreError, ClientError)


def patiently(call: Callable[[], T]) -> T:
    """The result of a call of MLflow's client; in a pod, where nobody starts the step again, it outlives an outage.

    Raises:
        Exception: one of `outages`, for longer than that, or where another answer is not to be expected.
    """
    began, pause = time.monotonic(), _FIRST_PAUSE_SECONDS
    patience = _PATIENCE_SECONDS if "KUBERNETES_SERVICE_HOST" in os.environ else 0.0
    while True:
        try:
            return call()
        except outages() as error:
            if not _may_pass(error) or time.monotonic() + pause > began + patience:
                raise
            log.warning("MLflow does not do its part (%s): trying again in %.0f s", first_line(error), pause)
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def _may_pass(error: Exception) -> bool:
    code = getattr(error, "error_code", None)
    is_final = isinstance(error, (FileNotFoundError, PermissionError, json.JSONDecodeError))
    return not is_final and (code is None or code in _PASSING)


def unless_away(call: Callable[[], T], *, otherwise: T, doing: str) -> T:
    """The result of a call of MLflow's client; `otherwise`, with a warning, where there is an outage."""
    try:
        return patiently(call)
    except outages() as error:
        log.warning("%s: MLflow does not do its part (%s); the work goes on", doing, first_line(error))
        return otherwise


class Outbox:
    """Calls in their order; those that fail for an outage are made again later, and the last time at the end."""

    def __init__(self, server: str) -> None:
        """`server` is what messages call it."""
        self._server = server
        self._calls: deque[Callable[[], None]] = deque()
        self._next_try = 0.0
        self._is_away = self._is_closed = False

    def send(self, call: Callable[[], None]) -> None:
        """Makes the call, after those that wait; or keeps it, while there is an outage.

        Raises:
            ValueError: the settings name what the server does not have; only where it answers from the beginning.
        """
        if self._is_closed:
            return
        self._calls.append(call)
        if time.monotonic() >= self._next_try:
            self._try_all()

    def close(self) -> None:
        """Tries what waits for the last time, and says how much is missing."""
        self._try_all()
        if self._calls:
            log.warning("%d entries of this run are missing in MLflow (%s)", len(self._calls), self._server)

    def _try_all(self) -> None:
        num_waiting, began = len(self._calls), time.monotonic()
        while self._calls:
            try:
                self._calls[0]()
            except outages() as error:
                if not _is_refused(error):
                    self._note_outage(error, seconds=time.monotonic() - began)
                    return
                log.warning("MLflow (%s) does not take an entry: %s", self._server, first_line(error))
            except ValueError as error:
                if not self._is_away:
                    raise
                log.warning("nothing is logged to MLflow (%s): %s", self._server, error)
                self._is_closed = True
                self._calls.clear()
                return
            self._calls.popleft()
        if self._is_away:
            self._is_away = False
            log.info("MLflow (%s) answers again: %d entries were handed in", self._server, num_waiting)

    def _note_outage(self, error: Exception, *, seconds: float) -> None:
        self._next_try = time.monotonic() + max(_PAUSE_SECONDS, _PAUSE_PER_SECOND * seconds)
        if not self._is_away:
            self._is_away = True
            log.warning(
                "MLflow (%s) does not do its part: %s. The work goes on; what is missing there is handed in when it "
                "answers again, or at the end",
                self._server,
                first_line(error),
            )


def first_line(error: Exception) -> str:
    """An error in one line; of one that is wrapped in others, the server and the system's own words."""
    server, reason = (re.search(pattern, str(error)) for pattern in (r"https?://[^/\s'\"]+", r"\[Errno -?\d+\] [\w ]+"))
    if server and reason:
        return f"{server[0]}: {reason[0]}"
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def _is_refused(error: Exception) -> bool:
    if isinstance(error, FileNotFoundError):  # what was to be stored is gone
        return True
    return getattr(error, "error_code", None) in _REFUSED
