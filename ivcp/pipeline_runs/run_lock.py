"""A folder that one process works in: a lock that ends with its process, however that ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

LOCK_FILE = "lock"


class RunInUseError(ValueError):
    """Another process works in the folder; the message names it."""


@contextlib.contextmanager
def held(folder: Path, *, advice: str = "") -> Iterator[None]:
    """Inside, no other process holds the folder. Its file names this host and process.

    Raises:
        RunInUseError: another process holds it, or one on another host did not say that it ended. `advice` says what
            to do.
    """
    with (folder / LOCK_FILE).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunInUseError(f"{_holder(file.name)} works in {folder}: {advice}") from error
        holder = _holder(file.name)
        if holder and not holder.endswith(f" on {socket.gethostname()}"):  # whose end a shared folder does not tell
            raise RunInUseError(f"{holder} works in {folder}, or ended without a word: {advice}, or remove {file.name}")
        _write(file.fileno(), f"process {os.getpid()} on {socket.gethostname()}")
        try:
            yield
        finally:
            _write(file.fileno(), "")


@contextlib.contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Waits until no other process of this machine is inside for `folder`."""
    with (folder / ".choosing").open("a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _holder(path: str) -> str:
    return Path(path).read_text(encoding="utf-8").strip()


def _write(descriptor: int, text: str) -> None:
    os.ftruncate(descriptor, 0)
    os.write(descriptor, text.encode())
