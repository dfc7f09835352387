"""A folder of downloads that stays below a size: the entry unused longest is removed first, one in use never.

Several processes share the folder. Its locks are `flock`s, which the kernel releases when a process dies.

    <name>/             an entry; a name ends in its size in bytes, its modification time is when it was last used
    .partial-<name>/    an entry that is being filled, or whose filling was interrupted
    .leases/<process>/  an empty file for each entry that this process uses, valid while <process>.lock is locked
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

_ENTRY = re.compile(r"(?:\.partial-)?([0-9a-f]+-(\d+))")
_STRIPES = 256
_KEPT_SHARE = 0.9
"""Cleaning leaves this share of the limit, so that not every new entry has to clean."""
_PROCESSES = 16
"""So many processes may add entries between two looks at the folder, without passing the limit."""

log = logging.getLogger(__name__)


class FileCache:
    """The entries of one folder, as one process sees them; threads may share it."""

    def __init__(self, folder: Path, max_bytes: int | None = None) -> None:
        """`max_bytes` None is nine tenths of what the disk has for it."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.max_bytes = max_bytes
        self._lease = _Lease(folder / ".leases")
        self._headroom = 0
        """Bytes that may be added before the next look at the folder."""

    def use(self, name: str, fill: Callable[[Path], None]) -> Path:
        """The folder of an entry, filled if it is not there; it stays until `release` or the process's end.

        `name` is `<hex digits>-<size in bytes>`. `fill` gets a folder that holds what an earlier, interrupted
        filling left there. Of several processes one fills, and the others wait.
        """
        target = self.folder / name
        while not self._lease_if_there(name):
            try:
                with _locked(self.folder / ".locks" / f"{int(name.partition('-')[0][:8], 16) % _STRIPES:03}"):
                    if not target.exists():
                        self._fill(name, fill)
            finally:
                self.release(name)
        return target

    def release(self, name: str) -> None:
        """Ends one `use`: when there is none left, the entry may go."""
        self._lease.drop(name)

    def _lease_if_there(self, name: str) -> bool:
        """Leases the entry, and says whether it is there; the lease stands in either case."""
        with _locked(self.folder / ".locks" / "all", shared=True):
            self._lease.take(name)
            target = self.folder / name
            if not target.exists():
                return False
            os.utime(target)
            return True

    def _fill(self, name: str, fill: Callable[[Path], None]) -> None:
        partial = self.folder / f".partial-{name}"
        self._make_room(int(name.rpartition("-")[2]), partial)
        partial.mkdir(exist_ok=True)
        fill(partial)
        partial.rename(self.folder / name)

    def _make_room(self, num_bytes: int, partial: Path) -> None:
        """Room for an entry that will be filled in `partial`."""
        self._headroom -= num_bytes
        if self._headroom >= 0:
            return
        with _locked(self.folder / ".locks" / "all"):
            removed = self._choose_and_hide(num_bytes, partial)
        for folder in removed:
            shutil.rmtree(folder, ignore_errors=True)

    def _choose_and_hide(self, num_bytes: int, partial: Path) -> list[Path]:
        """Renames the entries to be removed, so that no process finds them, and returns them."""
        entries = sorted(
            (entry for entry in self._entries() if entry.path != partial), key=lambda entry: entry.last_used
        )
        used = sum(entry.num_bytes for entry in entries) + num_bytes
        limit = self._limit(used - num_bytes)
        gone = [path for path in self.folder.iterdir() if path.name.startswith(".gone-")]
        in_use = self._lease.all_in_use()
        for entry in entries if used > limit else ():
            if entry.name not in in_use and used > _KEPT_SHARE * limit:
                gone.append(entry.path.rename(self.folder / f".gone-{uuid.uuid4().hex}"))
                used -= entry.num_bytes
        if used > limit:
            log.warning("%s holds %d bytes that are in use, more than its limit of %d", self.folder, used, limit)
        self._headroom = max(0, limit - used) // _PROCESSES
        return gone

    def _limit(self, cached: int) -> int:
        if self.max_bytes is not None:
            return self.max_bytes
        return int(_KEPT_SHARE * (shutil.disk_usage(self.folder).free + cached))

    def _entries(self) -> Iterator[_Entry]:
        for path in self.folder.iterdir():
            if found := _ENTRY.fullmatch(path.name):
                with suppress(FileNotFoundError):  # another process has filled it just now, and given it its name
                    yield _Entry(path, found[1], int(found[2]), path.stat().st_mtime_ns)


@dataclass(frozen=True)
class _Entry:
    path: Path
    name: str
    num_bytes: int
    last_used: int


class _Lease:
    """Which entries this process uses, where other processes see it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._own = folder / f"{os.getpid()}-{uuid.uuid4().hex}"
        self._lock_file: int | None = None
        self._uses: Counter[str] = Counter()
        self._mutex = Lock()

    def take(self, name: str) -> None:
        with self._mutex:
            if self._lock_file is None:
                self._own.mkdir(parents=True, exist_ok=True)
                self._lock_file = os.open(f"{self._own}.lock", os.O_CREAT | os.O_RDWR)  # open until the process ends
                fcntl.flock(self._lock_file, fcntl.LOCK_EX)
            self._uses[name] += 1
            (self._own / name).touch()

    def drop(self, name: str) -> None:
        with self._mutex:
            self._uses[name] -= 1
            if self._uses[name] <= 0:
                del self._uses[name]
                (self._own / name).unlink(missing_ok=True)

    def all_in_use(self) -> set[str]:
        """Names of the entries that a living process uses; leases of dead ones are removed."""
        names: set[str] = set()
        for folder in [path for path in self._folder.iterdir() if path.is_dir()]:
            if folder == self._own or _is_locked(Path(f"{folder}.lock")):
                names.update(path.name for path in folder.iterdir())
            else:
                shutil.rmtree(folder, ignore_errors=True)
                Path(f"{folder}.lock").unlink(missing_ok=True)
        return names


def _is_locked(path: Path) -> bool:
    try:
        with path.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


@contextmanager
def _locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    with suppress(FileExistsError):
        path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
