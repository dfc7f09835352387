"""What counts as an outage of MLflow, and who waits for its end."""

from __future__ import annotations

import json
import logging
import os
import re
import sqlite3
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

log = logging.getLogger(__name__)

_PATIENCE_SECONDS = 180.0
"""In a pod, for a server that restarts."""
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 2.0, 20.0
_PASSING = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED")
_LOGIN = re.compile(r"(?<=://)[^/\s]+@")
"""Of an address: name and password."""
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
    began, pause, seconds = time.monotonic(), _FIRST_PAUSE_SECONDS, patience()
    while True:
        try:
            return call()
        except outages() as error:
            if not _may_pass(error) or time.monotonic() + pause > began + seconds:
                raise
            log.warning("MLflow does not do its part (%s): trying again in %.0f s", first_line(error), pause)
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def patience() -> float:
    """How many seconds are waited for a server that is away, where work cannot go on or has come to its end."""
    return _PATIENCE_SECONDS if "KUBERNETES_SERVICE_HOST" in os.environ else 0.0


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


def first_line(error: Exception) -> str:
    """An error in one line; of one that is wrapped in others, the server and the system's own words."""
    text = without_login(str(error))
    server, reason = (re.search(pattern, text) for pattern in (r"https?://[^/\s'\"]+", r"\[Errno -?\d+\] [\w ]+"))
    if server and reason:
        return f"{server[0]}: {reason[0]}"
    return (text.strip() or type(error).__name__).splitlines()[0][:300]


def without_login(text: str) -> str:
    """A text whose addresses do not show the name and the password that they hold."""
    return _LOGIN.sub("***@", text)


def is_refused(error: Exception) -> bool:
    """Whether the server answers, and would say the same another time."""
    if isinstance(error, FileNotFoundError):  # what was to be stored is gone
        return True
    return getattr(error, "error_code", None) in _REFUSED
