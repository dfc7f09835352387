"""Where prepared clips lie: shards and receipts, which all runs with the same settings share, and each run's index.

<shards_uri>/<settings>/train-<clips>.arrow     a shard, named after its clips
                        train-<clips>.json      its receipt, written last
                        <run>/clips.arrow       the table of a run's clips
                        <run>/index.json        its index, written last
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ivcp import storage
from ivcp.data.prepared.shards import ShardError, find_file, find_shard
from ivcp.preparation.plan import PlannedShard
from ivcp.records import INDEX_FILE, PreparedIndex, QuarantinedClip, Record, ShardInfo
from ivcp.storage.atomic import PARTIAL, AtomicFile, is_abandoned, writable_folder
from ivcp.storage.owner import owned_in_turn

log = logging.getLogger(__name__)
TABLE_FILE = "clips.arrow"


class FailedClip(Record):
    """A planned clip that could not be prepared."""

    position: int
    """Among the clips that were planned for the shard."""
    quarantined: QuarantinedClip


class Receipt(Record):
    """What became of the clips that were planned for one shard: written when it is complete."""

    shard: ShardInfo | None
    """Null when none of them could be prepared."""
    offsets: tuple[int, ...]
    """Where each prepared clip's record begins."""
    num_tokens: tuple[int, ...]
    num_prompt_tokens: tuple[int, ...]
    failed: tuple[FailedClip, ...] = ()

    def rows(self, planned: PlannedShard) -> NDArray[np.int64]:
        """The prepared clips' places in the plan."""
        rows = np.arange(planned.rows.start, planned.rows.stop)
        return np.delete(rows, [clip.position for clip in self.failed])


@dataclass(frozen=True)
class ShardFolder:
    """The folder or s3:// prefix that the runs with the same settings share; files appear in it whole."""

    root_uri: str

    def sizes(self) -> dict[str, int]:
        """The size of each file in it, by name."""
        return storage.file_sizes(self.root_uri)

    def receipt(self, planned: PlannedShard) -> Receipt:
        """The receipt of a shard.

        Raises:
            FileNotFoundError: there is none.
        """
        return Receipt.model_validate_json(storage.read_text(storage.join(self.root_uri, f"{planned.name}.json")))

    def finished(
        self, planned: PlannedShard, sizes: dict[str, int], *, verify_checksum: bool = False
    ) -> Receipt | None:
        """The receipt of a shard of which nothing is left to do; `sizes` are the folder's.

        A clip that could not be prepared is tried again by the next run.
        """
        if f"{planned.name}.json" not in sizes:
            return None
        receipt = self.receipt(planned)
        shard = receipt.shard
        if shard is None or receipt.failed or sizes.get(shard.file) != shard.num_bytes:
            return None
        try:
            if verify_checksum:
                find_shard(self.root_uri, shard, verify_checksum=True)
        except ShardError as error:
            log.warning("it is written again: %s", error)
            return None
        return receipt

    @contextmanager
    def workspace(self, name: str = "") -> Iterator[Path]:
        """A local folder to write files to, which lie here, or in the folder `name` here, when the block ends well.

        Raises:
            OSError: it cannot be written.
        """
        if not storage.is_s3(self.root_uri):
            yield writable_folder(Path(self.root_uri) / name)
            return
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
            for path in sorted(Path(folder).iterdir()):
                storage.upload(path, storage.join(self.root_uri, *filter(None, (name, path.name))))

    def write_receipt(self, planned: PlannedShard, receipt: Receipt) -> None:
        """Writes a shard's receipt, whole or not at all."""
        with self.workspace() as folder, AtomicFile(folder / f"{planned.name}.json") as file:
            file.write(receipt.model_dump_json().encode())

    def indexes(self, sizes: dict[str, int]) -> Iterator[PreparedIndex]:
        """The indexes of earlier runs that can be read; `sizes` are the folder's."""
        for name in sorted(sizes):
            if not name.endswith(f"/{INDEX_FILE}"):
                continue
            try:
                index = PreparedIndex.model_validate_json(storage.read_text(storage.join(self.root_uri, name)))
            except ValueError as error:
                log.warning("%s cannot be read: %s", storage.join(self.root_uri, name), error)
            else:
                yield index.model_copy(update={"root_uri": self.root_uri})

    @contextmanager
    def owned(self, name: str) -> Iterator[None]:
        """Waits for other processes that write the run in the folder `name` here; inside, none begins."""
        uri = storage.join(self.root_uri, name)
        if not storage.is_s3(uri):
            writable_folder(Path(uri))
        with owned_in_turn(uri):
            yield

    def remove_partial_files(self, shards: tuple[PlannedShard, ...]) -> None:
        """Removes what killed runs left of shards that are complete now, and nothing that a living one still writes."""
        if storage.is_s3(self.root_uri):
            return  # an upload that was cut off leaves no object
        complete = {shard.name for shard in shards}
        for path in Path(self.root_uri).glob(f".*{PARTIAL}"):
            if path.name.split(".")[1] in complete and is_abandoned(path):
                path.unlink(missing_ok=True)


def find_prepared(folder: ShardFolder, fingerprint: str, *, verify_checksums: bool) -> PreparedIndex | None:
    """The index of an earlier run with the same fingerprint, where its shards are intact.

    Sizes are always compared, by one listing of the folder; checksums mean that every byte is read.
    """
    uri = storage.join(folder.root_uri, fingerprint[:16], INDEX_FILE)
    if not storage.exists(uri):
        return None
    try:
        index = PreparedIndex.model_validate_json(storage.read_text(uri))
        if index.fingerprint != fingerprint:
            return None
        index = index.model_copy(update={"root_uri": folder.root_uri})  # the folder may have been moved
        _check_files(index, folder.sizes(), verify_checksums)
    except (ValueError, ShardError) as error:
        log.warning("clips in %s cannot be used as they are and are prepared again: %s", folder.root_uri, error)
        return None
    log.info("clips are prepared already: %s", uri)
    return index


def _check_files(index: PreparedIndex, sizes: dict[str, int], verify_checksums: bool) -> None:
    find_file(index.root_uri, index.table.file, index.table.num_bytes, index.table.sha256)
    for shard in index.shards:
        if sizes.get(shard.file) != shard.num_bytes:
            raise ShardError(f"{shard.file} has {sizes.get(shard.file, 0)} bytes, the index says {shard.num_bytes}")
        if verify_checksums:
            find_shard(index.root_uri, shard, verify_checksum=True)


def absolute(uri: str) -> str:
    """A local folder by its whole path, an s3:// prefix as it is."""
    return uri if storage.is_s3(uri) else os.path.abspath(uri)  # noqa: PTH100 (a path that need not exist)
