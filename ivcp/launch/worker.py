"""One process of a training that torchrun started: `python -m ivcp.launch.worker WORK.json`."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from ivcp.distributed.processes import joined_processes
from ivcp.distributed.rank import is_owner
from ivcp.launch.preflight import PreflightError, check_all_reduce, check_processes
from ivcp.records import PreparedIndex, Record
from ivcp.settings import read_saved_config
from ivcp.training.train import train_model

log = logging.getLogger(__name__)

WRONG_CALL = 2
"""Exit code for settings, files or machines that are wrong: starting again changes nothing."""
REFUSALS = (ValueError, FileNotFoundError, FileExistsError, PermissionError, PreflightError)
"""Errors that end a process with it."""


class Work(Record):
    """What the processes of a node are to do."""

    run_config: str
    """Path of the settings."""
    index: str
    """Path of the prepared clips' index."""
    output_dir: str
    """Where the adapter directory and checkpoints are written."""
    mirror_uri: str | None
    """Where checkpoints are copied to."""


def train(work: Work) -> None:
    """Checks that all processes are here and hear each other, then trains."""
    config = read_saved_config(Path(work.run_config))
    check_processes(config, seconds=config.launch.train_start_seconds)
    with joined_processes(config.train):
        check_all_reduce()
        index = PreparedIndex.read(Path(work.index))
        result = train_model(config, index=index, output_dir=Path(work.output_dir), mirror_uri=work.mirror_uri)
    if is_owner():
        log.info("%s", result.summary)


def main() -> None:
    """Trains in this process."""
    rank = os.environ.get("RANK", "0")
    level = logging.INFO if is_owner() else logging.WARNING
    process = "" if is_owner() else f" process {rank}"
    logging.basicConfig(level=level, format=f"%(asctime)s %(levelname)s{process} %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    from torch.distributed.elastic.multiprocessing.errors import record

    try:
        record(train)(Work.read(Path(sys.argv[1])))  # writes an error where torchrun looks for it
    except REFUSALS as error:
        log.error("%s: %s", type(error).__name__, error)
        sys.exit(WRONG_CALL)


if __name__ == "__main__":
    main()
