"""Shards of prepared samples: Arrow stream files, read memory-mapped. `datasets.Dataset.from_file` opens them too.

Each sample is a record of its own; `ivcp.data.prepared.table` says where it begins.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa

from ivcp import storage
from ivcp.records import ShardInfo, Split
from ivcp.storage.atomic import AtomicFile, checksum

_END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"


class ShardError(ValueError):
    """A shard that is missing or not what the index says."""


class ShardReader:
    """Single samples of a shard, memory-mapped: nothing is read before it is used, and nothing is kept in memory."""

    def __init__(self, path: Path) -> None:
        self._file = pa.memory_map(str(path))
        self._schema = pa.ipc.read_schema(self._file)

    def read(self, offset: int) -> pa.RecordBatch:
        """The sample whose record begins at `offset`: columns of one row, whose bytes lie in the file."""
        self._file.seek(offset)
        return pa.ipc.read_record_batch(pa.ipc.read_message(self._file), self._schema)


def find_shard(root_uri: str, shard: ShardInfo, *, verify_checksum: bool = False) -> Path:
    """The local file of a shard, downloaded where it has to be.

    Raises:
        ShardError: it is missing or not what the index says.
    """
    return find_file(root_uri, shard.file, shard.num_bytes, shard.sha256 if verify_checksum else None)


def find_file(root_uri: str, name: str, num_bytes: int, sha256: str | None) -> Path:
    """The local path of a file below `root_uri`, downloaded where it has to be; `sha256` is checked where given.

    Raises:
        ShardError: it is missing or has another size or checksum.
    """
    uri = storage.join(root_uri, name)
    try:
        path = storage.local_path(uri)
    except FileNotFoundError as error:
        raise ShardError(f"{uri} is missing: run the preparation step again") from error
    found_bytes = path.stat().st_size
    if found_bytes != num_bytes or (sha256 is not None and checksum(path) != sha256):
        found = f"{found_bytes} bytes" if found_bytes != num_bytes else "another checksum"
        raise ShardError(
            f"{uri} has {found}, the index says {num_bytes} bytes{f', sha256 {sha256[:12]}' if sha256 else ''}: "
            f"it was cut off or replaced. Delete it and run the preparation step again"
        )
    return path


class ShardFile:
    """One shard while it is written, in the order of `add`; the same samples give the same bytes.

    Without samples there is no file.
    """

    def __init__(self, path: Path, split: Split) -> None:
        self.offsets: list[int] = []
        """Where the record of each sample begins."""
        self._split, self._file = split, AtomicFile(path)

    def add(self, record: pa.RecordBatch) -> None:
        """Writes one sample that `encode_sample` made."""
        if not self.offsets:
            self._file.write(record.schema.serialize())
        self.offsets.append(self._file.num_bytes)
        self._file.write(record.serialize())

    def rename(self, name: str) -> None:
        """Gives the file another name than it was begun with."""
        self._file.path = self._file.path.with_name(name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and self.offsets:
            self._file.write(_END_OF_STREAM)
        self._file.__exit__(kind, error, trace)

    @property
    def path(self) -> Path:
        """Where the file is, once the block is left."""
        return self._file.path

    @property
    def info(self) -> ShardInfo:
        """What was written, once the block is left."""
        return ShardInfo(
            file=self.path.name,
            split=self._split,
            num_clips=len(self.offsets),
            num_bytes=self._file.num_bytes,
            sha256=self._file.sha256,
        )
