"""What a step did, how long it took and why it failed: one JSON file per step."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from ivcp.records import Record

_TIME = "%H:%M:%S"

RECORDS_DIR_VARIABLE = "IVCP_STEP_RECORDS"
"""Environment variable with the folder that records go to; unset writes none."""


class StepRecord(Record):
    """One step of one run."""

    step: str
    status: Literal["succeeded", "failed"]
    seconds: float
    result: str = ""
    """What came out, in a few words."""
    error: str = ""
    """The exception's type and message, of a failed step."""
    directory: str = ""
    """Folder with the step's main output."""


class Outcome:
    """Filled in by the step while it runs."""

    result: str = ""
    directory: str = ""


@contextmanager
def recorded_step(step: str) -> Iterator[Outcome]:
    """Sets up logging, runs a step's work and records its outcome; a failure is recorded and raised again."""
    # KFP's executor has set up its own format before.
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt=_TIME, force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for every request
    started, outcome, error = time.monotonic(), Outcome(), ""
    try:
        yield outcome
    except BaseException as raised:
        error = f"{type(raised).__name__}: {raised}"
        raise
    finally:
        record = StepRecord(
            step=step,
            status="failed" if error else "succeeded",
            seconds=time.monotonic() - started,
            result=outcome.result,
            error=error,
            directory=outcome.directory,
        )
        directory = os.environ.get(RECORDS_DIR_VARIABLE)
        if directory:
            record.write(Path(directory) / f"{step}.json")
