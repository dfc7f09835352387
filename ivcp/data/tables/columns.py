"""Parquet and Arrow files, some rows at a time, and the folders that Hugging Face's `datasets` saves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from ivcp.data.tables.text import TableError

_AT_ONCE = 256
"""Rows that become Python values at once."""
_ARROW_FILE = b"ARROW1"
"""What an Arrow file begins with that is no stream."""


def read_parquet(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file.

    Raises:
        TableError: it is none, or two columns have one name.
    """
    yield from _read(path, "Parquet", _parquet_batches)


def read_arrow(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of an Arrow file or stream; errors as in `read_parquet`."""
    yield from _read(path, "Arrow", _arrow_batches)


def _read(path: Path, kind: str, batches: Callable[[Path], Iterator[Any]]) -> Iterator[dict[str, Any]]:
    try:
        for batch in batches(path):
            twice = [name for name, count in Counter(batch.schema.names).items() if count > 1]
            if twice:
                raise TableError(f"{path}: two columns are named {', '.join(twice)}: rename one of them")
            batch.validate(full=True)  # what a damaged Arrow file says of its lengths would end the process
            yield from batch.to_pylist()
    except FileNotFoundError as error:
        raise TableError(f"{path} does not exist: expected an annotation file") from error
    except UnicodeDecodeError as error:
        raise TableError(f"{path}: a text in it is not in UTF-8 ({error}): write the file again") from error
    except (pa.ArrowException, OSError) as error:
        raise TableError(f"{path} is no {kind} file, or a damaged one: {error}") from error


def _parquet_batches(path: Path) -> Iterator[Any]:
    with parquet.ParquetFile(path) as file:
        yield from file.iter_batches(batch_size=_AT_ONCE)


def _arrow_batches(path: Path) -> Iterator[Any]:
    with pa.memory_map(str(path)) as source:
        magic = source.read(len(_ARROW_FILE))
        source.seek(0)
        for batch in _of_file(source) if magic == _ARROW_FILE else pa.ipc.open_stream(source):
            for start in range(0, batch.num_rows, _AT_ONCE):
                yield batch.slice(start, _AT_ONCE)


def _of_file(source: Any) -> Iterator[Any]:
    reader = pa.ipc.open_file(source)
    return (reader.get_batch(number) for number in range(reader.num_record_batches))
