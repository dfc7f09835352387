"""Entries that MLflow did not take, on disk: a later step hands them in.

    <runs folder>/mlflow-spool/<one per run of a step>/entries.jsonl   what run it is for, then one entry a line
    <runs folder>/mlflow-spool/<one per run of a step>/files/          copies of files that are to be stored with it

The process that writes a file holds a lock on it, and so does the one that hands it in.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import shutil
import threading
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from pydantic import ValidationError

from ivcp.tracking.entries import File, Opening, Started, read_entry

log = logging.getLogger(__name__)

FOLDER = "mlflow-spool"
_ENTRIES = "entries.jsonl"


class Spool:
    """The file of one run of a step; it is there only while something waits."""

    def __init__(self, parent: Path, opening: Opening) -> None:
        """`parent` is the runs folder."""
        self.uri = opening.uri
        self._parent, self._opening = parent, opening
        self._folder: Path | None = None
        self._file: TextIO | None = None
        self._lock = threading.RLock()
        self._is_broken = False

    def started(self, run_id: str) -> None:
        """The run that is to be started was: whoever hands the file in must not start another one."""
        with self._lock:
            self._opening = self._opening.model_copy(update={"run_id": run_id})
            if self._file is not None:
                self.keep([Started(run_id=run_id)])

    @property
    def folder(self) -> Path | None:
        """Null where nothing waits, or it cannot be written."""
        return self._folder

    def keep(self, entries: Iterable[Any]) -> bool:
        """Writes entries behind those that are there; false where an entry, now or before, could not be written."""
        with self._lock:
            if self._is_broken:
                return False
            try:
                file = self._opened()
                for entry in entries:
                    file.write(self._with_copies(entry).model_dump_json() + "\n")
                file.flush()
            except (OSError, ValueError) as error:  # a text may have no JSON: half a surrogate pair
                log.debug("what MLflow does not take now cannot be kept in %s: %s", self._parent / FOLDER, error)
                self.remove()
                self._is_broken = True
        return not self._is_broken

    def keep_at_last(self, entries: Iterable[Any]) -> bool:
        """Writes what is left at the end; where writing failed before, all of it. False where that cannot be done."""
        if not self._is_broken:
            return True
        self._is_broken = False
        return self.keep(entries)

    def remove(self) -> None:
        """Nothing waits any more."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)  # under the lock: nobody hands it in once more
            self._folder = None
        self.close()
        self._is_broken = False

    def close(self) -> None:
        """Leaves the file to whoever hands it in."""
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):  # what it still holds does not fit on the disk
                file.close()

    def _opened(self) -> TextIO:
        if self._file is None:
            folder = self._parent / FOLDER / uuid.uuid4().hex
            folder.mkdir(parents=True)
            self._folder = folder
            self._file = (folder / _ENTRIES).open("w", encoding="utf-8")
            fcntl.flock(self._file, fcntl.LOCK_EX)
            self._file.write(self._opening.model_dump_json() + "\n")
        return self._file

    def _with_copies(self, entry: Any) -> Any:
        """The entry with its files beside it: their originals may be written over."""
        assert self._folder is not None
        if not (isinstance(entry, File) and entry.path.is_file()):
            return entry
        target = self._folder / "files" / uuid.uuid4().hex / entry.path.name
        target.parent.mkdir(parents=True)
        shutil.copyfile(entry.path, target)
        return entry.model_copy(update={"path": target.resolve()})


@contextmanager
def claimed(folder: Path) -> Iterator[tuple[Opening, list[Any], TextIO] | None]:
    """What waits in a spool's folder, and its file for what is to be added; null where its process still lives, or
    another one has handed it in."""
    try:
        opened = (folder / _ENTRIES).open("r+", encoding="utf-8", errors="replace")  # it may end within a letter
    except OSError as error:
        if not isinstance(error, FileNotFoundError):
            log.warning("%s cannot be handed in: %s", folder, error)
        yield None
        return
    with opened as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield None
            return
        text = file.read()
        if not text or not (folder / _ENTRIES).exists():
            yield None
            return
        if not text.endswith("\n"):
            file.write("\n")
        first, *lines = text.rstrip("\n").split("\n")  # a text in them may hold other ends of lines
        yield Opening.model_validate_json(first), list(_whole(lines)), file


def waiting(parent: Path, uri: str) -> list[Path]:
    """The folders below the runs folder `parent` with something for the store `uri`, the oldest first."""
    found = []
    for file in (parent / FOLDER).glob(f"*/{_ENTRIES}"):
        try:
            with file.open(encoding="utf-8", errors="replace") as opened:
                opening = Opening.model_validate_json(opened.readline())
        except (OSError, ValidationError):
            continue  # it is removed, or begun, at this moment
        if opening.uri == uri:
            found.append((opening.time, file.parent))
    return [folder for _, folder in sorted(found)]


def _whole(lines: Iterable[str]) -> Iterator[Any]:
    """Without what a process was killed in the middle of."""
    for line in lines:
        try:
            yield read_entry(line)
        except ValidationError:
            log.warning("a line that was cut off is left out: %s", line[:80])
