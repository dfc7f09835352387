"""Cache entries on disk: tensors of many clips, written once, read memory-mapped, evicted when space runs out.

A cache entry is a folder of safetensors files (parts) of `clips_per_part` clips each. A part appears under its name
only when it is complete, so that a crash leaves at most a file that the next run deletes, and two runs that write the
same part write the same content. A process that uses an entry holds a shared lock on it, which the system
releases when the process ends. Only an entry that no process holds can be evicted, and then as a whole.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ivcp.storage.atomic import PARTIAL, replacing

log = logging.getLogger(__name__)

_LOCK_FILE = "in_use.lock"
_ENDS = "ends/"
"""Name prefix of the tensors that say where each clip's rows end, (clips,)."""


class StoreError(RuntimeError):
    """A cache entry that cannot be written, or a part that cannot be read; the message says what to do."""


class CacheEntry:
    """The tensors of `num_clips` clips by name; a clip's tensors are rows of larger ones.

    Parts are mapped at the first read of each process, so that a copy for a DataLoader worker is a path and a number.
    """

    def __init__(self, folder: Path, num_clips: int, *, clips_per_part: int) -> None:
        self.folder = folder
        self.num_clips = num_clips
        self.clips_per_part = clips_per_part
        self._unlock: Callable[[], Any] | None = None
        self._parts: dict[int, tuple[dict[str, Tensor], dict[str, list[int]]]] = {}

    def hold(self) -> None:
        """Makes the folder and locks it against eviction until `release`, or until this process ends.

        Also deletes what crashed runs left, and sets the time of the entry's last use to now.

        Raises:
            StoreError: the folder cannot be written.
        """
        if self._unlock is not None:
            return
        try:
            self._unlock = weakref.finalize(self, os.close, _lock_folder(self.folder))
            os.utime(self.folder / _LOCK_FILE)
        except OSError as error:
            raise StoreError(f"{self.folder} cannot be written ({error})") from error

    def release(self) -> None:
        """Gives up the lock of `hold`."""
        if self._unlock is not None:
            self._unlock()
            self._unlock = None

    @property
    def num_parts(self) -> int:
        """Files of the complete entry."""
        return -(-self.num_clips // self.clips_per_part)

    @property
    def num_bytes(self) -> int:
        """Disk space of the parts that are there."""
        return sum(path.stat().st_size for path in self.folder.glob("part-*.safetensors"))

    def clips_of(self, part: int) -> range:
        """Positions of the clips of a part."""
        return range(part * self.clips_per_part, min((part + 1) * self.clips_per_part, self.num_clips))

    def missing(self) -> list[int]:
        """Parts that are not there, or damaged."""
        return [part for part in range(self.num_parts) if not _is_sound(self._path(part))]

    def write(self, part: int, clips: Sequence[Mapping[str, Tensor]]) -> None:
        """Writes one part: the tensors of each of its clips, by name; a clip need not have all of them.

        Raises:
            StoreError: the disk is full or cannot be written.
        """
        try:
            with replacing(self._path(part)) as partial:
                save_file(pack(clips), partial)
        except (OSError, SafetensorError) as error:
            raise StoreError(f"{self.folder} cannot be written ({error})") from error

    def __getitem__(self, position: int) -> dict[str, Tensor]:
        part, row = divmod(position, self.clips_per_part)
        tensors, ends = self._part(part)
        clip = {}
        for name, tensor in tensors.items():
            start = ends[name][row - 1] if row else 0
            if start < ends[name][row]:
                clip[name] = tensor[start : ends[name][row]]
        return clip

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_parts": {}, "_unlock": None}

    def _part(self, part: int) -> tuple[dict[str, Tensor], dict[str, list[int]]]:
        if part not in self._parts:
            try:
                stored = load_file(self._path(part))
            except (OSError, SafetensorError) as error:
                raise StoreError(f"{self._path(part)} cannot be read ({error}): delete {self.folder}") from error
            ends = {name.removeprefix(_ENDS): stored.pop(name).tolist() for name in sorted(stored) if _is_ends(name)}
            self._parts[part] = stored, ends
        return self._parts[part]

    def _path(self, part: int) -> Path:
        return self.folder / f"part-{part:05d}.safetensors"


def pack(clips: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of a part: each name's rows of all clips, and where each clip's rows end."""
    packed = {}
    for name in dict.fromkeys(name for clip in clips for name in clip):
        packed[name] = torch.cat([clip[name] for clip in clips if name in clip]).cpu()
        packed[_ENDS + name] = torch.tensor([len(clip.get(name, ())) for clip in clips]).cumsum(0)
    return packed


def make_room(cache_dir: Path, needed_bytes: int, *, max_bytes: int, keep: Sequence[Path] = ()) -> None:
    """Deletes the entries below `cache_dir` that nobody uses, those unused longest first, until `needed_bytes` fit.

    Entries in `keep` stay. Nothing is deleted where that would not be enough.

    Raises:
        StoreError: the rest, with `needed_bytes`, is more than `max_bytes` or than the disk has.
    """
    sizes = _sizes_by_last_use(cache_dir)
    evictable = [folder for folder in sizes if folder not in keep and not _is_held(folder)]
    excess = max(
        sum(sizes.values()) + needed_bytes - max_bytes,
        needed_bytes - shutil.disk_usage(cache_dir).free,
    )
    if excess > sum(sizes[folder] for folder in evictable):
        used, free = sum(sizes.values()), shutil.disk_usage(cache_dir).free
        raise StoreError(
            f"{needed_bytes / 1e9:.3g} GB more do not fit into {cache_dir}: {used / 1e9:.3g} GB are used of "
            f"{max_bytes / 1e9:.3g} GB allowed, {free / 1e9:.3g} GB of the disk are free; "
            "raise vision_cache_max_gigabytes or set vision_cache_dir to a larger disk"
        )
    for folder in evictable:
        if excess <= 0:
            return
        if _evict(folder):
            log.info("deleted %s (%.3g GB), which was unused longest", folder, sizes[folder] / 1e9)
            excess -= sizes[folder]


def _sizes_by_last_use(cache_dir: Path) -> dict[Path, int]:
    """Bytes of each entry, the one unused longest first."""
    found = []
    for lock in cache_dir.glob(f"*/{_LOCK_FILE}"):
        try:
            num_bytes = sum(path.stat().st_size for path in lock.parent.iterdir())
            found.append((lock.stat().st_mtime, lock.parent, num_bytes))
        except FileNotFoundError:
            continue  # somebody else evicts it
    return {folder: num_bytes for _, folder, num_bytes in sorted(found)}


def _lock_folder(folder: Path) -> int:
    """The descriptor that holds a shared lock on a folder, which is made where it is missing."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / _LOCK_FILE, os.O_RDWR | os.O_CREAT)
        if _try_lock(lock):  # no other process uses it: what looks unfinished is unfinished
            for leftover in folder.glob(f".*{PARTIAL}"):
                leftover.unlink(missing_ok=True)
        fcntl.flock(lock, fcntl.LOCK_SH)
        if os.fstat(lock).st_nlink:
            return lock
        os.close(lock)  # the folder was evicted between the lines above


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_held(folder: Path) -> bool:
    with (folder / _LOCK_FILE).open("rb") as lock:
        return not _try_lock(lock.fileno())


def _evict(folder: Path) -> bool:
    with (folder / _LOCK_FILE).open("rb") as lock:
        if not _try_lock(lock.fileno()):
            return False
        shutil.rmtree(folder, ignore_errors=True)
        return True


def _is_ends(name: str) -> bool:
    return name.startswith(_ENDS)


def _is_sound(path: Path) -> bool:
    """Whether a part is there with all its bytes: safetensors compares the header with the file's length."""
    if not path.is_file():
        return False
    try:
        with safe_open(path, framework="pt"):
            return True
    except (OSError, SafetensorError):
        log.warning("%s is damaged and is computed again", path)
        return False
