"""Copies of a run's checkpoints on S3 or in a shared folder, for a run that resumes with an empty disk.

A run's folder there holds `unfinished_run.json` from the run's start to its end, and `checkpoint-<step>` folders. Where
the nodes of a run share no disk, each uploads the files on its own disk, and then a marker that names them. A
checkpoint counts when the markers of all disks are there. No process waits here for another one.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from ivcp import storage
from ivcp.distributed.disks import Disk
from ivcp.records import CHECKPOINT_FOLDER, UNFINISHED_FILE, PreparedIndex, Record
from ivcp.settings import RunConfig
from ivcp.training.checkpoints.folder import (
    CheckpointError,
    clear_checkpoint,
    is_earlier_run,
    is_same_run,
    is_unfinished,
    same_run,
    surplus_checkpoints,
    whole_checkpoints,
)

log = logging.getLogger(__name__)

_MARKER = re.compile(r"mirrored-(\d+)-of-(\d+)\.json")
_STATE_FILE = "trainer_state.json"


class MirroredFiles(Record):
    """`mirrored-<disk>-of-<disks>.json`, the last file that a disk adds to a checkpoint's copy."""

    attempt: str
    """The start of the run that wrote it: parts of different starts do not make one checkpoint."""
    files: dict[str, int]
    """Bytes of each file, by its path in the checkpoint."""


def run_key(config: RunConfig, index: PreparedIndex, run_id: str | None) -> str:
    """What tells a run from others: its settings, its clips, and the id of the pipeline run that it is part of."""
    described = json.dumps([same_run(config), index.fingerprint, index.data_fingerprint, run_id], sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()[:12]


class CheckpointMirror:
    """The folder or s3:// prefix `uri` with the copies of one run's checkpoints, as one process sees it."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._disk = Disk.shared()
        self._attempt = ""
        self._upload: threading.Thread | None = None
        self._uploading = ""

    def checkpoints(self) -> list[str]:
        """Names of the checkpoints that arrived completely, the earliest first.

        Raises:
            PermissionError, ConnectionError: `uri` cannot be read.
        """
        files = storage.file_sizes(self.uri)
        markers: dict[str, list[tuple[int, str]]] = defaultdict(list)
        for path in files:
            folder, _, name = path.partition("/")
            if CHECKPOINT_FOLDER.fullmatch(folder) and (found := _MARKER.fullmatch(name)):
                markers[folder].append((int(found[2]), name))
        whole = [folder for folder, found in markers.items() if self._is_whole(folder, found, files)]
        return sorted(whole, key=lambda name: int(name.rpartition("-")[2]))

    def restore(self, config: RunConfig, output_dir: Path) -> None:
        """Brings the last checkpoint of an unfinished run, and its best, into an `output_dir` that lacks them.

        Only the first process calls this.
        """
        present = whole_checkpoints(output_dir)
        is_free = not any(is_earlier_run(entry) for entry in output_dir.iterdir()) if output_dir.is_dir() else True
        if config.train.resume_from_checkpoint is False or not (is_free or is_unfinished(config, output_dir)):
            return
        started = storage.join(self.uri, UNFINISHED_FILE)
        if not storage.exists(started) or not is_same_run(config, storage.read_text(started)):
            return
        names = self.checkpoints()
        if not names or (present and _step(present[-1].name) >= _step(names[-1])):
            return
        log.info("this run was begun elsewhere and did not end: fetching %s from %s", names[-1], self.uri)
        output_dir.mkdir(parents=True, exist_ok=True)
        storage.fetch(started, output_dir / UNFINISHED_FILE)
        self.fetch(names[-1], output_dir)
        best = _best_of(output_dir / names[-1])
        if best in names and not (output_dir / best).exists():
            self.fetch(best, output_dir)

    def begin(self, output_dir: Path, start: Path | None) -> None:
        """Marks the run as unfinished here too, and removes what is half-written or later than the checkpoint `start`.

        Only the first process calls this.

        Raises:
            PermissionError, ConnectionError: `uri` cannot be written.
        """
        storage.write_text(
            storage.join(self.uri, UNFINISHED_FILE), (output_dir / UNFINISHED_FILE).read_text(encoding="utf-8")
        )
        limit = _step(start.name) if start else -1
        whole = {name for name in self.checkpoints() if _step(name) <= limit}
        folders = {path.partition("/")[0] for path in storage.file_sizes(self.uri)}
        for name in sorted(folders - whole):
            if CHECKPOINT_FOLDER.fullmatch(name):
                log.info("removing %s from %s: of an earlier run, or half-written", name, self.uri)
                self._remove(name)

    def join(self, disk: Disk, *, attempt: str) -> None:
        """Says for which disk this process acts, in which start of the run; all processes call this."""
        self._disk, self._attempt = disk, attempt

    def fetch(self, name: str, output_dir: Path) -> None:
        """Copies a complete checkpoint to `output_dir`.

        Raises:
            CheckpointError: it is not there, or what is in its place here was not written by this project.
        """
        if name not in self.checkpoints():
            raise CheckpointError(f"{self.uri} holds no complete {name}: its upload failed, see the log of this run")
        clear_checkpoint(output_dir / name)
        storage.fetch(storage.join(self.uri, name), output_dir / name)
        for marker in (output_dir / name).glob("mirrored-*.json"):
            marker.unlink()

    @property
    def in_use(self) -> tuple[str, ...]:
        """Names of checkpoints that are being uploaded: they must stay on the disk."""
        is_running = self._upload is not None and self._upload.is_alive()
        return (self._uploading,) if is_running else ()

    def send(self, directory: Path, *, limit: int | None, best: str | None) -> None:
        """Uploads this disk's part of a checkpoint beside the training; waits first for an earlier one.

        Older copies beyond `limit` are removed as in `output_dir`. A failure is logged, and costs only this copy.
        """
        self.wait()
        self._uploading = directory.name
        self._upload = threading.Thread(target=self._send, args=(directory, limit, best), daemon=True)
        self._upload.start()

    def wait(self) -> None:
        """Returns when nothing is being uploaded any more."""
        if self._upload is None:
            return
        began = time.monotonic()
        self._upload.join()
        if time.monotonic() - began > 1:
            log.info("waited %.0f s for the upload of %s", time.monotonic() - began, self._uploading)

    def end(self) -> None:
        """Marks the run as finished; the copies stay. Only the first process calls this."""
        storage.delete(storage.join(self.uri, UNFINISHED_FILE))

    def _send(self, directory: Path, limit: int | None, best: str | None) -> None:
        began, target = time.monotonic(), storage.join(self.uri, directory.name)
        try:
            files = storage.file_sizes(directory)
            storage.upload(directory, target)
            marker = MirroredFiles(attempt=self._attempt, files=files)
            name = f"mirrored-{self._disk.number}-of-{self._disk.count}.json"
            storage.write_text(storage.join(target, name), marker.model_dump_json())
            log.info("%s is in %s (%.3g GB, %.1f s)", directory.name, self.uri, sum(files.values()) / 1e9,
                     time.monotonic() - began)  # fmt: skip
            if self._disk.number == 0:
                for old in surplus_checkpoints(self.checkpoints(), limit=limit, best=best):
                    self._remove(old)
        except OSError as error:
            log.error(
                "%s could not be copied to %s, a run that starts with an empty disk resumes from an earlier one: %s",
                directory.name, self.uri, error,
            )  # fmt: skip

    def _remove(self, name: str) -> None:
        """Markers first: what an interrupted removal leaves counts as half-written."""
        folder = storage.join(self.uri, name)
        for file in storage.file_sizes(folder):
            if _MARKER.fullmatch(file):
                storage.delete(storage.join(folder, file))
        storage.delete(folder)

    def _is_whole(self, folder: str, markers: list[tuple[int, str]], files: dict[str, int]) -> bool:
        count = max(number for number, _ in markers)
        if not {f"mirrored-{disk}-of-{count}.json" for disk in range(count)} <= {name for _, name in markers}:
            return False
        read = [self._read_marker(folder, name) for number, name in markers if number == count]
        arrived = all(files.get(f"{folder}/{file}") == size for part in read for file, size in part.files.items())
        return arrived and len({part.attempt for part in read}) == 1

    def _read_marker(self, folder: str, name: str) -> MirroredFiles:
        return MirroredFiles.model_validate_json(storage.read_text(storage.join(self.uri, folder, name)))


def _best_of(checkpoint: Path) -> str:
    """Name of the best checkpoint when this one was written, which need not be there."""
    state: dict[str, Any] = json.loads((checkpoint / _STATE_FILE).read_text(encoding="utf-8"))
    return f"checkpoint-{state.get('best_global_step')}"


def _step(checkpoint: str) -> int:
    return int(checkpoint.rpartition("-")[2])
