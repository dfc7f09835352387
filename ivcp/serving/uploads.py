"""Where the videos of requests become files that decoders can read.

Files lie in a folder of this process, below one of this user. Its lock tells whether its owner lives: what a killed
server left is removed by the next one that starts on this machine.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


class UploadFolder:
    """A folder of this process for the files of requests."""

    def __init__(self) -> None:
        """Removes what servers that were killed left.

        Raises:
            OSError: there is no place to write to, or it belongs to another user.
        """
        parent = Path(tempfile.gettempdir()) / f"ivcp-uploads-{os.getuid()}"
        parent.mkdir(mode=0o700, exist_ok=True)
        if parent.is_symlink() or parent.stat().st_uid != os.getuid():
            raise PermissionError(f"{parent} belongs to another user: remove it, or set TMPDIR to another folder")
        with _locked(parent):
            for left in parent.iterdir():
                _remove_unless_owned(left)
            self.path = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=parent))
            self._lock = os.open(self.path, os.O_RDONLY)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._removals = ThreadPoolExecutor(1, "remove-uploads")

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """A new folder for the files of one request, which are removed behind it while others are answered."""
        path = Path(tempfile.mkdtemp(prefix="upload-", dir=self.path))
        try:
            yield path
        finally:
            with suppress(RuntimeError):  # all was removed, and the server ends
                self._removals.submit(shutil.rmtree, path, ignore_errors=True)

    def remove(self) -> None:
        """Removes the folder with all that is in it."""
        self._removals.shutdown()
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def write_upload(content: BinaryIO, num_bytes: int, path: Path) -> None:
    """Writes a file of `num_bytes` bytes.

    Raises:
        OSError: it cannot be written. Nothing of it is left then, and one that has no place is not begun, so that
            smaller ones find theirs.
    """
    if num_bytes > shutil.disk_usage(path.parent).free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    try:
        with path.open("wb") as file:
            shutil.copyfileobj(content, file, 2**20)
    except OSError:
        path.unlink(missing_ok=True)
        raise


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _remove_unless_owned(folder: Path) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return  # no folder: nothing that a server wrote
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:
        pass
    finally:
        os.close(descriptor)
