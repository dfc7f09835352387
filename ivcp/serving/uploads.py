"""Uploads on disk: how many bytes of them there may be at a time, and that none stays behind.

Files lie in a folder of this process, below one of this user. Its lock tells whether its owner lives: what a killed
server left is removed by the next one that starts on this machine.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_RETRY_SECONDS = 5


class UploadFolder:
    """Where uploads become files that decoders can read."""

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

    @contextmanager
    def holding(self, upload: BinaryIO, *, suffix: str) -> Iterator[Path]:
        """Inside, the upload's bytes are a file; the form's own copy of them is closed."""
        with tempfile.NamedTemporaryFile(prefix="upload-", suffix=suffix, dir=self.path) as file:
            shutil.copyfileobj(upload, file)
            file.flush()
            upload.close()
            yield Path(file.name)

    def remove(self) -> None:
        """Removes the folder with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


class UploadLimit:
    """Answers 413 to a request body that is too large, and 503 where all of them together are: announced or not."""

    def __init__(self, app: ASGIApp, *, max_bytes: int, max_total_bytes: int) -> None:
        """`max_bytes` is for one request, `max_total_bytes` for all that are under way."""
        self.app, self.max_bytes, self.max_total_bytes = app, max_bytes, max_total_bytes
        self._total, self._lock = 0, threading.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Counts what arrives, until the request is answered or its client is gone."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            num_bytes = len(message.get("body", b""))
            received += num_bytes
            self._add(num_bytes)
            if received > self.max_bytes:
                raise HTTPException(413, f"the upload is larger than {self.max_bytes / 1e6:g} MB")
            if self._total > self.max_total_bytes:
                raise HTTPException(
                    503,
                    f"uploads of more than {self.max_total_bytes / 1e6:g} MB are under way: send it again later",
                    headers={"Retry-After": str(_RETRY_SECONDS)},
                )
            return message

        try:
            await self.app(scope, counted, send)
        finally:
            self._add(-received)

    def _add(self, num_bytes: int) -> None:
        with self._lock:
            self._total += num_bytes


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
