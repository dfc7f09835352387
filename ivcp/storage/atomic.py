"""Atomic writes: a file gets its name when it is complete and on the disk, or never."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self
from uuid import uuid4

PARTIAL = ".partial"
"""End of a file's name while it is written."""
_LONGEST_SILENCE = 24 * 3600.0
"""Seconds without a write."""


def partial_path(path: Path) -> Path:
    """A hidden name beside `path` that no other writer of it has, on this machine or on one that shares the folder."""
    return path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}{PARTIAL}")


def is_abandoned(partial: Path) -> bool:
    """Whether a `partial_path` has a writer that is gone: a process of this machine, or one silent for a day."""
    host, process = partial.name.removesuffix(PARTIAL).rpartition(".")[2].rsplit("-", 2)[:2]
    try:
        if host != socket.gethostname():
            return time.time() - partial.stat().st_mtime > _LONGEST_SILENCE
        os.kill(int(process), 0)
    except (ProcessLookupError, FileNotFoundError):
        return True
    except PermissionError:
        pass  # somebody else's process
    return False


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Inside, another program writes the file that is yielded; it takes the name `path` when the block ends well."""
    partial = partial_path(path)
    try:
        yield partial
        flush_to_disk(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    flush_to_disk(path.parent)


def write_whole(path: Path, text: str) -> None:
    """Makes or replaces a UTF-8 file."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


class AtomicFile:
    """A file that is written piece by piece; the block's exception leaves nothing, and neither does an empty one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        """May be changed until the block ends."""
        self._partial = partial_path(path)
        self._file: BinaryIO = self._partial.open("wb")
        self._digest, self.num_bytes = hashlib.sha256(), 0

    @property
    def sha256(self) -> str:
        """Of what was written so far."""
        return self._digest.hexdigest()

    def write(self, content: Any) -> None:
        """Writes bytes, or anything with their interface."""
        self._file.write(content)
        self._digest.update(content)
        self.num_bytes += len(content)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            if error is None:
                self._file.flush()
                os.fsync(self._file.fileno())
        if error is not None or not self.num_bytes:
            self._partial.unlink()
            return
        self._partial.replace(self.path)
        flush_to_disk(self.path.parent)


def checksum(path: Path) -> str:
    """The file's sha256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush_to_disk(path: Path) -> None:
    """Makes sure that a file's content, or the names in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def writable_folder(path: Path) -> Path:
    """Makes the folder where it is missing, and makes sure that it can be written before any work is done.

    Raises:
        OSError: it cannot be made or written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = partial_path(path / "probe")
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OSError(
            f"output folder {path} cannot be written ({error}): choose another, or correct its rights"
        ) from error
    return path
