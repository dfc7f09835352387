"""The prepared samples of one split as a torch data set."""

from __future__ import annotations

from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from ivcp import storage
from ivcp.data.prepared.encoding import decode_sample
from ivcp.data.prepared.sample import Sample
from ivcp.data.prepared.shards import ShardReader, find_file, find_shard
from ivcp.data.prepared.table import MORE_CONTENTS, SHORT_SIDE, SampleTable
from ivcp.data.seen_clips import ClipIdentities
from ivcp.records import PreparedIndex, ShardInfo, Split

_MOST_OPEN = 512
"""Shards that are open at once: each takes a file descriptor, of which a process has 1,024 by default."""
_Rows = slice | NDArray[np.int64]
"""Of the table; those of a split lie side by side, those of a fold do not."""


class PreparedSamples(Dataset[Sample]):
    """Prepared samples with those of one video side by side, from memory-mapped shards.

    Table and shards are opened at the first read of each process, so that a copy for a DataLoader worker is a few
    paths; shards of an s3:// index are downloaded one by one when their first sample is read.
    """

    def __init__(
        self,
        index: PreparedIndex,
        split: Split,
        *,
        verify_checksums: bool = False,
        keep_candidates: bool = False,
    ) -> None:
        """Finds the table and the local shards, and checks their sizes.

        With `keep_candidates`, samples keep all frames that are stored around each sampled moment.

        Raises:
            ShardError: a file is missing, has another size, or, with `verify_checksums`, another content.
        """
        self.split = split
        self._root_uri, self._verify = index.root_uri, verify_checksums
        self._infos, self._rows = _shards_of(index, split)
        self._table_path = find_file(
            index.root_uri, index.table.file, index.table.num_bytes, index.table.sha256 if verify_checksums else None
        )
        self._paths: dict[int, Path] = {}
        if not storage.is_s3(index.root_uri):
            self._paths = {number: self._find(number) for number in self._infos}
        self._keep_candidates = keep_candidates
        self._with_frames = True
        self._table: SampleTable | None = None
        self._shards: dict[int, ShardReader] = {}

    def __len__(self) -> int:
        return _count(self._rows)

    def __getitem__(self, index: int) -> Sample:
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)} in split {self.split}")
        row = _row(self._rows, index % len(self))
        shard, offset = (int(self._opened_table.column(name)[row]) for name in ("shard", "offset"))
        record = self._shard(shard).read(offset)
        return decode_sample(record, with_frames=self._with_frames, keep_candidates=self._keep_candidates)

    def without_frames(self) -> PreparedSamples:
        """The same samples with no frames, (0, 0, 0, 3), whose bytes are then never read."""
        light = copy(self)
        light._with_frames = False
        return light

    def token_lengths(self, *, prompts_only: bool) -> NDArray[np.int64]:
        """Tokens of each sample, (len(self),), of its prompt or of all of it, from the table."""
        return self.column(_lengths_column(prompts_only=prompts_only)).astype(np.int64)

    def column(self, name: str) -> NDArray[Any]:
        """A column of numbers, (len(self),), from the table: one of the stage's, or one of every sample's."""
        return self._opened_table.column(name, self._rows)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_shards": {}, "_table": None}

    @property
    def _opened_table(self) -> SampleTable:
        if self._table is None:
            self._table = SampleTable(self._table_path)
        return self._table

    def _shard(self, number: int) -> ShardReader:
        if number not in self._shards:
            if len(self._shards) == _MOST_OPEN:
                self._shards.pop(next(iter(self._shards)))
            self._shards[number] = ShardReader(self._paths.get(number) or self._find(number))
        return self._shards[number]

    def _find(self, number: int) -> Path:
        return find_shard(self._root_uri, self._infos[number], verify_checksum=self._verify)


def read_identities(index: PreparedIndex, split: Split) -> ClipIdentities:
    """What the samples of a split are known by.

    Raises:
        ShardError: the table is missing or damaged.
        ValueError: an earlier version wrote it, which did not note that.
    """
    table = SampleTable(find_file(index.root_uri, index.table.file, index.table.num_bytes, None))
    if not {"content", "group"} <= set(table.names):
        raise ValueError(
            f"{index.root_uri}: an earlier version of ivcp prepared these clips, and did not note what a model "
            "remembers of them: validate and prepare them again; nothing is decoded again for that"
        )
    rows = _shards_of(index, split)[1]
    more = table.lists(MORE_CONTENTS, rows) if MORE_CONTENTS in table.names else ()
    return ClipIdentities(table.column("content", rows), table.column("group", rows), *more)


def read_short_sides(index: PreparedIndex, split: Split) -> NDArray[np.int32]:
    """Pixels of the shorter side of each sample's first video, (samples,); 0 where nobody noted it.

    Raises:
        ShardError: the table is missing or damaged.
    """
    table = SampleTable(find_file(index.root_uri, index.table.file, index.table.num_bytes, None))
    rows = _shards_of(index, split)[1]
    if SHORT_SIDE in table.names:
        return table.column(SHORT_SIDE, rows)
    return np.zeros(_count(rows), dtype=np.int32)  # an earlier version prepared them


def read_lengths(index: PreparedIndex, split: Split, *, prompts_only: bool) -> NDArray[np.int64]:
    """Tokens of each sample of a split, (samples,), of its prompt or of all of it, without its shards.

    Raises:
        ShardError: the table is missing or damaged.
    """
    table = SampleTable(find_file(index.root_uri, index.table.file, index.table.num_bytes, None))
    rows = _shards_of(index, split)[1]
    return table.column(_lengths_column(prompts_only=prompts_only), rows).astype(np.int64)


def _lengths_column(*, prompts_only: bool) -> str:
    return "num_prompt_tokens" if prompts_only else "num_tokens"


def _shards_of(index: PreparedIndex, split: Split) -> tuple[dict[int, ShardInfo], _Rows]:
    """The shards of a split by their number, and its rows in the table."""
    if index.fold is None:
        return _written_for(index, split)
    shards, rows = _written_for(index, "train")
    test, val = (np.array(chosen, dtype=np.int64) for chosen in (index.fold.test, index.fold.val))
    match split:
        case "test":
            return shards, rows.start + test
        case "val":
            return (shards, rows.start + val) if len(val) else _written_for(index, "val")
        case "train":
            return shards, rows.start + np.delete(np.arange(rows.stop - rows.start), np.concatenate([test, val]))


def _written_for(index: PreparedIndex, split: Split) -> tuple[dict[int, ShardInfo], slice]:
    """The shards that were written for a split, and its rows."""
    numbers = {number: shard for number, shard in enumerate(index.shards) if shard.split == split}
    start = sum(shard.num_clips for shard in index.shards[: min(numbers, default=0)])
    return numbers, slice(start, start + sum(shard.num_clips for shard in numbers.values()))


def _count(rows: _Rows) -> int:
    return int(rows.stop - rows.start) if isinstance(rows, slice) else len(rows)


def _row(rows: _Rows, place: int) -> int:
    return int(rows.start + place) if isinstance(rows, slice) else int(rows[place])
