"""A file with rows, by the kind that its name says; and the files of a folder that hold some."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ivcp.data.tables.cells import WITH_TABS, read_named_cells
from ivcp.data.tables.json_rows import read_json, read_json_rows
from ivcp.data.tables.text import TableError

_LINES = (".jsonl", ".ndjson")
_CELLS = (".csv", *WITH_TABS)
_COLUMNS = (".parquet", ".arrow")
_TEXT = (".json", *_LINES, *_CELLS)
SUFFIXES = (*_TEXT, *_COLUMNS)
"""What `read_rows` reads; a text file may be compressed, `.gz` behind it."""
_NO_ROWS = ("dataset_info.json", "labels.json", "state.json", "dataset_dict.json")
"""JSON files that lie beside rows and say something about them."""


def is_table(path: Path) -> bool:
    """Whether a file is one that `read_rows` reads, by its name."""
    name = path.name.lower()
    return name.removesuffix(".gz").endswith(_TEXT) or name.endswith(_COLUMNS)


def has_rows(path: Path) -> bool:
    """Whether a file of a folder holds rows, by its name: no description, and no hidden one (`._name` of macOS)."""
    return is_table(path) and not path.name.startswith(".") and path.name not in _NO_ROWS


def read_rows(path: Path, *, delimiter: str | None = None, encoding: str | None = None) -> Iterator[Any]:
    """The rows of a file, one by one; encodings and delimiters that need no name are known.

    Rows of a .csv, .tsv or .tab file have the header's names as keys and text as values, None where a line is too
    short. Any other text file is a JSON list, or has one JSON value per line. `delimiter` and `encoding` of text files
    as in `read_table`.

    Raises:
        TableError: there is no such file, or its content is something else.
        EncodingError: it is in another encoding.
    """
    name = path.name.lower()
    if name.endswith(_COLUMNS):
        yield from _read_columns(path, is_parquet=name.endswith(".parquet"))
    elif name.removesuffix(".gz").endswith(_CELLS):
        yield from read_named_cells(path, delimiter=delimiter, encoding=encoding)
    else:
        one_per_line = name.removesuffix(".gz").endswith(_LINES)
        yield from read_json_rows(path, one_per_line=one_per_line, encoding=encoding)


def saved_files(folder: Path, split: str) -> list[Path] | None:
    """The files of a folder that `datasets` saved (`save_to_disk`), in their order; None where it is no such folder.

    Raises:
        TableError: it has several splits and `split` is none of them, or its own description cannot be read.
    """
    if (folder / "dataset_dict.json").is_file():
        splits = _described(folder / "dataset_dict.json", "splits")
        if split not in splits:
            raise TableError(
                f"{folder} has the splits {', '.join(splits)}, {split!r} is none: set split in dataset_info.json"
            )
        folder = folder / split
    if not (folder / "state.json").is_file():
        return None
    return [folder / str(entry["filename"]) for entry in _described(folder / "state.json", "_data_files")]


def _described(path: Path, key: str) -> list[Any]:
    content = read_json(path)
    found = content.get(key) if isinstance(content, dict) else None
    if not isinstance(found, list) or not all(isinstance(entry, str) or "filename" in entry for entry in found):
        raise TableError(f"{path}: expected {key} in it, as the save_to_disk of datasets writes it")
    return found


def _read_columns(path: Path, *, is_parquet: bool) -> Iterator[dict[str, Any]]:
    try:
        from ivcp.data.tables import columns  # not installed everywhere, and slow to import
    except ImportError as error:
        raise TableError(f"{path} needs pyarrow to be read: pip install 'ivcp[data]'") from error
    yield from columns.read_parquet(path) if is_parquet else columns.read_arrow(path)
