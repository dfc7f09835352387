"""What waits on disk for MLflow, handed in by a later step."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any, TextIO

from ivcp.tracking.client import connect
from ivcp.tracking.entries import Opening, Started, taken_together
from ivcp.tracking.experiment import opened_run
from ivcp.tracking.outages import first_line, outages, without_login
from ivcp.tracking.outbox import hand_in
from ivcp.tracking.spool import claimed, waiting

log = logging.getLogger(__name__)

_MOST_TOGETHER = 200
"""Entries."""


def hand_in_earlier(store: Path, uri: str) -> int:
    """Hands in what steps could not log to the store `uri`, from the runs folder `store`; how many entries it was.

    Nothing is raised: what MLflow does not take now waits for the next step.
    """
    done = 0
    for folder in waiting(store, uri):
        with claimed(folder) as found:
            if found is None:
                continue
            opening, entries, file = found
            try:
                done += _handed_in(opening, entries, file)
            except outages() as error:
                log.warning("%s waits on: MLflow does not do its part: %s", folder, first_line(error))
                if getattr(error, "error_code", None) == "RESOURCE_DOES_NOT_EXIST":
                    continue  # its run is gone: that is nothing to the others
                return done
            except ValueError as error:
                log.warning("%s cannot be handed in: %s", folder, error)
                continue
            shutil.rmtree(folder, ignore_errors=True)
    if done:
        log.info("MLflow (%s) has %d entries now that it did not take before", without_login(uri), done)
    return done


def _handed_in(opening: Opening, entries: list[Any], file: TextIO) -> int:
    client = connect(opening.uri)
    known = [entry.run_id for entry in entries if isinstance(entry, Started)]
    if known:
        run_id = known[-1]
    else:
        run_id = opened_run(client, opening).info.run_id
        file.write(Started(run_id=run_id).model_dump_json() + "\n")
        file.flush()
    done = 0
    while done < len(entries):
        entry, number = taken_together(entries[done : done + _MOST_TOGETHER])
        hand_in(entry, lambda entry: entry.deliver(client, run_id), server=without_login(opening.uri))
        done += number
    return len(entries) - len(known)
