"""Where a process writes that it works: a file in a folder, with a lock, or an object on S3."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from pydantic import BaseModel, ValidationError

from ivcp.storage import s3
from ivcp.storage.rewriting import put_if_unchanged
from ivcp.storage.s3 import Location, S3Object, translated_errors

OWNER_FILE = ".owner"
_CHILDREN_SECONDS = 15.0
"""So long after their parent was killed, its worker processes may hold its lock."""
_SETTLING_SECONDS = 0.5
"""Time for another newcomer's claim to arrive, on stores that know no conditions."""
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)
"""What file systems answer that know no flock."""


class InUseError(ValueError):
    """Another process works there; the message names it."""


class Claim(BaseModel):
    """`.owner`."""

    process: int
    host: str
    boot: str
    """Of the host's kernel, which all its containers share."""
    claim: str
    """Of each start another one."""
    beat: int = 0

    @classmethod
    def new(cls) -> Claim:
        """This process's."""
        boot = Path("/proc/sys/kernel/random/boot_id")
        known = boot.read_text(encoding="utf-8").strip() if boot.exists() else socket.gethostname()
        return cls(process=os.getpid(), host=socket.gethostname(), boot=known, claim=uuid4().hex)

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}"


class Place(Protocol):
    """Where a claim is written."""

    def read(self) -> Claim | None:
        """Null where nobody works, as far as this machine knows."""

    def write(self, claim: Claim | None) -> bool:
        """None gives the place up. False where somebody else wrote since the last `read` or `write`."""


class _File:
    """A claim in a folder."""

    def __init__(self, path: Path, descriptor: int, *, is_locked: bool) -> None:
        """`is_locked` says that no other process of this machine has the file."""
        self._path, self._descriptor, self._is_locked = path, descriptor, is_locked
        self._known: str | None = None

    def read(self) -> Claim | None:
        found = _parse(_read(self._path))
        self._known = None if found is None else found.claim
        has_ended = found is not None and self._is_locked and found.boot == Claim.new().boot
        return None if has_ended else found

    def write(self, claim: Claim | None) -> bool:
        found = _parse(_read(self._path))
        if (None if found is None else found.claim) != self._known:
            return False
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, b"" if claim is None else claim.model_dump_json().encode(), 0)
        os.fsync(self._descriptor)
        self._known = None if claim is None else claim.claim
        return True


@contextlib.contextmanager
def claim_in_folder(folder: Path, *, advice: str) -> Iterator[Place]:
    """A folder's claim.

    Raises:
        InUseError: another process of this machine has it.
    """
    path = folder / OWNER_FILE
    descriptor, is_locked = _open_locked(path, advice)
    try:
        yield _File(path, descriptor, is_locked=is_locked)
    finally:
        if not _read(path):
            path.unlink(missing_ok=True)  # while it is locked: `_open_locked` looks whether the file still has its name
        os.close(descriptor)


def _open_locked(path: Path, advice: str) -> tuple[int, bool]:
    """A descriptor of the file, and whether the file system has locks."""
    ends = time.monotonic() + _CHILDREN_SECONDS
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        is_locked = _try_lock(descriptor)
        if is_locked is not False and os.fstat(descriptor).st_nlink:
            return descriptor, bool(is_locked)
        os.close(descriptor)
        if is_locked is False:
            owner = _parse(_read(path))
            if owner is None or _is_alive(owner.process) or time.monotonic() > ends:
                raise InUseError(f"{owner or 'another process'} works in {path.parent}: {advice}")
            time.sleep(0.1)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _try_lock(descriptor: int) -> bool | None:
    """Whether the lock is got; null on a file system without locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return None
    return True


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's
    return True


class _Object:
    """A claim on S3."""

    def __init__(self, location: Location) -> None:
        self._location, self._uri = location, f"s3://{location.bucket}/{location.key}"
        self._found: S3Object | None = None

    def read(self) -> Claim | None:
        with translated_errors(self._uri):
            self._found = self._location.object()
            return None if self._found is None else _parse(s3.read(self._location))

    def write(self, claim: Claim | None) -> bool:
        with translated_errors(self._uri):
            if self._location.object() != self._found:
                return False
            if claim is None:
                s3.delete(self._location)
                self._found = None
                return True
            content = claim.model_dump_json().encode()
            etag = put_if_unchanged(self._location, content, self._found)
            if etag is not None and self._found is None:
                time.sleep(_SETTLING_SECONDS)
                etag = etag if (found := self._location.object()) and found.etag == etag else None
        if etag is None:
            return False
        self._found = S3Object(self._location.key, etag, len(content))
        return True


@contextlib.contextmanager
def claim_on_s3(uri: str) -> Iterator[Place]:
    """A prefix's claim. It is written only where nobody wrote it meanwhile, as AWS and MinIO check (If-Match)."""
    location = Location.parse(uri)
    yield _Object(Location(location.bucket, f"{location.key}/{OWNER_FILE}".lstrip("/")))


def _parse(content: bytes) -> Claim | None:
    """None where nobody is written there, or what is there cannot be read."""
    try:
        return Claim.model_validate_json(content)
    except ValidationError:
        return None
