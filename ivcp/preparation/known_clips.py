"""Clips that earlier runs prepared: their records are copied, nothing is decoded again."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ivcp.data.prepared.shards import ShardError, ShardReader, find_file, find_shard
from ivcp.data.prepared.table import KEY_BYTES, SampleTable
from ivcp.preparation.plan import Plan, PlannedShard
from ivcp.preparation.publish import ShardFolder
from ivcp.records import PreparedIndex, ShardInfo

log = logging.getLogger(__name__)
_MOST_OPEN = 64
_Found = tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64], list[ShardInfo]]
"""Keys, each one's shard as a position in the list, and the place of its record in it."""


class KnownClips:
    """Records by their clips' keys, read from shards whose checksum is right."""

    def __init__(self, root_uri: str, found: Iterable[_Found]) -> None:
        self._root_uri = root_uri
        self._shards: list[ShardInfo] = []
        keys, shards, offsets = [np.zeros(0, dtype=f"S{KEY_BYTES}")], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for some_keys, some_shards, some_offsets, infos in found:
            keys.append(some_keys)
            shards.append(some_shards + len(self._shards))
            offsets.append(some_offsets)
            self._shards += infos
        self._keys, firsts = np.unique(np.concatenate(keys), return_index=True)
        self._at, self._offsets = np.concatenate(shards)[firsts], np.concatenate(offsets)[firsts]
        self._paths: dict[int, Path | None] = {}
        self._readers: dict[int, ShardReader] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key: bytes) -> bool:
        """Whether there is a sound record of a clip with this key."""
        place = self._place(key)
        return place is not None and self._reader(int(self._at[place])) is not None

    def get(self, key: bytes) -> pa.RecordBatch | None:
        """The record of a clip with this key, of any row of the annotations; null where there is no sound one."""
        place = self._place(key)
        reader = None if place is None else self._reader(int(self._at[place]))
        return None if reader is None else reader.read(int(self._offsets[place]))

    def _place(self, key: bytes) -> int | None:
        place = int(np.searchsorted(self._keys, np.array(key, dtype=self._keys.dtype)))
        return place if place < len(self._keys) and self._keys[place] == np.bytes_(key) else None

    def _reader(self, number: int) -> ShardReader | None:
        if number not in self._paths:
            self._paths[number] = self._sound_path(self._shards[number])
        path = self._paths[number]
        if path is not None and number not in self._readers:
            if len(self._readers) == _MOST_OPEN:
                self._readers.pop(next(iter(self._readers)))
            self._readers[number] = ShardReader(path)
        return self._readers.get(number)

    def _sound_path(self, shard: ShardInfo) -> Path | None:
        try:
            return find_shard(self._root_uri, shard, verify_checksum=True)
        except ShardError as error:
            log.warning("its clips are prepared again: %s", error)
            return None


def find_known(folder: ShardFolder, sizes: dict[str, int], plan: Plan, todo: Iterable[PlannedShard]) -> KnownClips:
    """The clips of `todo` that runs with the same settings prepared before; `sizes` are the folder's."""
    todo = list(todo)
    rows = [np.arange(shard.rows.start, shard.rows.stop) for shard in todo]
    wanted = plan.keys[np.concatenate(rows)] if rows else plan.keys[:0]
    found = [*_of_unfinished(folder, sizes, plan, todo), *_of_indexes(folder, sizes, wanted)]
    return KnownClips(folder.root_uri, found)


def _of_indexes(folder: ShardFolder, sizes: dict[str, int], wanted: NDArray[Any]) -> Iterator[_Found]:
    for index in folder.indexes(sizes):
        table = _open_table(index)
        if table is None:
            continue
        keys = table.column("key")
        rows = np.flatnonzero(np.isin(keys, wanted))
        shards = table.column("shard")[rows].astype(np.int64)
        intact = np.array([sizes.get(shard.file) == shard.num_bytes for shard in index.shards], dtype=bool)
        rows, shards = rows[intact[shards]], shards[intact[shards]]
        yield keys[rows], shards, table.column("offset")[rows], list(index.shards)


def _open_table(index: PreparedIndex) -> SampleTable | None:
    try:
        return SampleTable(find_file(index.root_uri, index.table.file, index.table.num_bytes, index.table.sha256))
    except ShardError as error:
        log.warning("clips of an earlier run are not taken up: %s", error)
        return None


def _of_unfinished(
    folder: ShardFolder, sizes: dict[str, int], plan: Plan, todo: Iterable[PlannedShard]
) -> Iterator[_Found]:
    """The sound clips of shards that are written again because some of their clips could not be prepared."""
    for planned in todo:
        if f"{planned.name}.json" not in sizes:
            continue
        receipt = folder.receipt(planned)
        if receipt.shard is not None and sizes.get(receipt.shard.file) == receipt.shard.num_bytes:
            keys = plan.keys[receipt.rows(planned)]
            yield keys, np.zeros(len(keys), np.int64), np.array(receipt.offsets, np.int64), [receipt.shard]
