"""The table beside an index of prepared samples: one row per sample, in columns that are read memory-mapped.

An Arrow file; `pyarrow`, pandas and polars open it. Readers find a sample's record, length and numbers in it without
touching the shards, and the preparation step finds out which samples it has prepared before.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ivcp.data.prepared.sample import Column
from ivcp.records import SPLITS, ShardInfo, TableInfo
from ivcp.storage.atomic import AtomicFile

KEY_BYTES = 16
MORE_CONTENTS = "more_contents"
SHORT_SIDE = "short_side"
_FIELDS = [
    ("sample_id", pa.large_string()),
    ("split", pa.dictionary(pa.int8(), pa.string())),
    ("num_tokens", pa.int32()),
    ("num_prompt_tokens", pa.int32()),
    ("shard", pa.int32()),  # its number in the index
    ("offset", pa.int64()),  # where its record begins in the shard
    ("key", pa.binary(KEY_BYTES)),  # hash of what its frames and tokens depend on
    ("content", pa.uint64()),  # what its video and its group are known by: see ivcp.data.seen_clips
    ("group", pa.uint64()),
    (MORE_CONTENTS, pa.list_(pa.uint64())),  # what its further videos and images are known by
    (SHORT_SIDE, pa.int32()),  # pixels of its first video's shorter side; 0 where that is not known
]


class SampleTable:
    """A table that was written before; columns are arrays whose bytes lie in the file."""

    def __init__(self, path: Path) -> None:
        self._rows = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)

    def __len__(self) -> int:
        return int(self._rows.num_rows)

    @property
    def names(self) -> list[str]:
        """Its columns."""
        return list(self._rows.schema.names)

    def column(self, name: str, rows: slice | NDArray[np.int64] = slice(None)) -> NDArray[Any]:
        """A column of numbers or of keys, (rows,), read-only."""
        column = self._rows[name]
        if name != "key":
            numbers: NDArray[Any] = column.to_numpy()[rows]
            return numbers
        keys = np.frombuffer(column.buffers()[1], dtype=f"S{KEY_BYTES}", count=len(self))
        return keys[rows]

    def lists(self, name: str, rows: slice | NDArray[np.int64] = slice(None)) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """A column of lists of numbers: of each number the row that has it, counted from the first of `rows`, and the
        numbers, (numbers,) both."""
        column = self._rows[name]
        column = column[rows] if isinstance(rows, slice) else column.take(pa.array(rows))
        lengths = column.value_lengths().to_numpy(zero_copy_only=False)
        return np.repeat(np.arange(len(column)), lengths), column.flatten().to_numpy()


def list_column(owners: NDArray[np.int64], values: NDArray[Any], *, num_rows: int) -> pa.Array:
    """What `SampleTable.lists` reads, as a column."""
    ends = np.cumsum(np.bincount(owners, minlength=num_rows))
    return pa.ListArray.from_arrays([0, *ends], values[np.argsort(owners, kind="stable")])


def write_table(
    path: Path, shards: Iterable[ShardInfo], values: Mapping[str, Any], *, columns: Sequence[Column]
) -> TableInfo:
    """Writes the table of all samples of `shards`, in their order, whole or not at all.

    `values` are the table's columns without `split` and `shard`, which follow from the shards; `columns` are the
    stage's, of which numbers stand in the table.
    """
    schema = pa.schema([*_FIELDS, *((column.name, column.type) for column in columns if column.is_number)])
    shards = list(shards)
    counts = [shard.num_clips for shard in shards]
    split_codes = np.repeat(np.array([SPLITS.index(shard.split) for shard in shards], dtype=np.int8), counts)
    all_columns = {
        **values,
        "split": pa.DictionaryArray.from_arrays(pa.array(split_codes), pa.array(SPLITS)),
        "shard": np.repeat(np.arange(len(shards), dtype=np.int32), counts),
    }
    arrays = [_as_array(all_columns[field.name], field.type) for field in schema]
    with AtomicFile(path) as file, pa.ipc.new_file(pa.PythonFile(_Sink(file), mode="w"), schema) as writer:
        writer.write_batch(pa.record_batch(arrays, schema=schema))
    return TableInfo(file=path.name, num_bytes=file.num_bytes, sha256=file.sha256)


class _Sink(io.RawIOBase):
    """Arrow's way into the file, without a copy of all columns in memory."""

    def __init__(self, file: AtomicFile) -> None:
        super().__init__()
        self._target = file

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        self._target.write(content)
        return len(content)

    def tell(self) -> int:
        return self._target.num_bytes


def _as_array(values: Any, kind: Any) -> Any:
    """An Arrow array of `kind`; keys may be a numpy array of `S16`."""
    if isinstance(values, np.ndarray) and values.dtype.kind == "S":
        return pa.FixedSizeBinaryArray.from_buffers(
            kind, len(values), [None, pa.py_buffer(np.ascontiguousarray(values))]
        )
    return values.cast(kind) if isinstance(values, pa.Array) else pa.array(values, type=kind)
