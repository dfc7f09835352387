"""Text files with rows: opened in their encoding, and read row by row, so that they may be larger than memory.

The one place that knows encodings, delimiters and JSON with its errors; registry and importers say what rows mean.
"""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from ivcp.data.json_list import iterate_list

_WITH_TABS = (".tsv", ".tab")
_WITH_CELLS = (".csv", *_WITH_TABS)
SUFFIXES = (".json", ".jsonl", *_WITH_CELLS)
"""What `read_rows` reads."""
_DELIMITERS = (",", ";", "\t", "|")
_MARKED = ("utf-8-sig", "utf-16", "utf-32")
"""Encodings that a byte order mark names."""
_CHUNK_BYTES = 2**20


class TableError(ValueError):
    """A file that cannot be read; the message names it, the line, what was expected and what came."""


class EncodingError(TableError):
    """A file in another encoding than the expected one."""


def read_text(path: Path, *, encoding: str | None = None) -> str:
    """The whole text of a file, without its byte order mark.

    `encoding` is by default UTF-8, or UTF-16 or UTF-32 where the file's first bytes say so.

    Raises:
        TableError: there is no such file, or no such encoding.
        EncodingError: it is in another encoding.
    """
    with _opened(path, encoding) as file:
        return file.read()


def read_json(path: Path, *, encoding: str | None = None) -> Any:
    """The value of a JSON file, whole; `encoding` and errors as in `read_text` and `parse_json`."""
    return parse_json(read_text(path, encoding=encoding), str(path))


def parse_json(text: str, where: str) -> Any:
    """The value of a JSON text that `where` holds.

    Raises:
        TableError: it is not valid JSON.
    """
    try:
        return json.loads(text.removeprefix("\ufeff"))
    except json.JSONDecodeError as error:
        raise TableError(f"{where} is not valid JSON: {error}") from error


def read_cells(path: Path, *, delimiter: str | None = None, encoding: str | None = None) -> Iterator[list[str]]:
    """The lines of a CSV or TSV file as cells, one by one, from the header on; a blank line has none.

    `delimiter` is by default a tab for .tsv and .tab, else a comma; or the one of comma, semicolon, tab and | that
    divides the header, where that one does not. `encoding` as in `read_text`.

    Raises:
        TableError: there is no such file or encoding, or a line cannot be divided into cells.
        EncodingError: the file is in another encoding.
    """
    with _opened(path, encoding, newline="") as file:
        header = next((line for line in file if line.strip()), "")
        reader = csv.reader(itertools.chain([header], file), delimiter=delimiter or _delimiter(path, header))
        try:
            yield from reader
        except csv.Error as error:
            raise TableError(f"{path} line {reader.line_num} is no line of a CSV file: {error}") from error


def surplus_cells(cells: Sequence[str], header: Sequence[str]) -> str:
    """What to say of a line with more cells than the header."""
    return (
        f"the line {', '.join(cells)!r} has {len(cells)} cells, the header {len(header)}: put a text that holds the "
        'delimiter in quotes ("…")'
    )


def read_rows(path: Path) -> Iterator[Any]:
    """The rows of a file with one of `SUFFIXES`, one by one; encodings and delimiters that need no name are known.

    A .jsonl file has one JSON value per line. Rows of a .csv, .tsv or .tab file have the header's names as keys and
    text as values, None where a line is too short. Any other file is a JSON list.

    Raises:
        TableError: there is no such file, or its content is something else.
        EncodingError: it is in another encoding.
    """
    suffix = path.suffix.lower()
    if suffix == ".jsonl":
        yield from _read_lines(path)
    elif suffix in _WITH_CELLS:
        yield from _read_named_cells(path)
    else:
        yield from _read_list(path)


def _read_list(path: Path) -> Iterator[Any]:
    with _opened(path, None) as file:
        try:
            yield from iterate_list(file)
        except json.JSONDecodeError as error:
            raise TableError(f"{path} is not valid JSON: {error}") from error
        except TypeError as error:
            raise TableError(
                f"{path}: expected a list of rows, got {error}; a file with one row per line is named .jsonl"
            ) from error


def _read_lines(path: Path) -> Iterator[Any]:
    with _opened(path, None) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    yield json.loads(line)
                except json.JSONDecodeError as error:
                    raise TableError(f"{path} line {number} is not valid JSON: {error}") from error


def _read_named_cells(path: Path) -> Iterator[dict[str, str | None]]:
    lines = read_cells(path)
    header = next(lines, [])
    for cells in lines:
        if any(cells[len(header) :]):
            raise TableError(f"{path}: {surplus_cells(cells, header)}")
        if cells:
            yield dict(itertools.zip_longest(header, cells[: len(header)]))


def _delimiter(path: Path, header: str) -> str:
    """The usual one of this kind of file, or the first that divides its header."""
    usual = "\t" if path.suffix.lower() in _WITH_TABS else ","
    for delimiter in (usual, *_DELIMITERS):
        if len(next(csv.reader([header], delimiter=delimiter), [])) > 1:
            return delimiter
    return usual


@contextmanager
def _opened(path: Path, encoding: str | None, *, newline: str | None = None) -> Iterator[TextIO]:
    try:
        binary = path.open("rb")
    except FileNotFoundError as error:
        raise TableError(f"{path} does not exist: expected an annotation file") from error
    except IsADirectoryError as error:
        raise TableError(f"{path} is a folder: expected an annotation file") from error
    with binary:
        chosen = _encoding(path, encoding, binary.peek(4)[:4])
        try:
            yield io.TextIOWrapper(binary, encoding=chosen, newline=newline)
        except UnicodeError as error:
            raise EncodingError(f"{path}: expected text in {chosen}, got {_what_came(path, chosen)}") from error


def _encoding(path: Path, named: str | None, first_bytes: bytes) -> str:
    """The one that is named; a byte order mark says which UTF it is."""
    found = json.detect_encoding(first_bytes)  # also UTF-16 and UTF-32 without a mark
    if named is None:
        return found
    try:
        name = codecs.lookup(named).name
        "".encode(name)
    except LookupError as error:
        raise TableError(
            f"{path}: no encoding is named {named!r}: expected a name as utf-8, gb18030 or cp1252"
        ) from error
    return found if name.startswith("utf") and found in _MARKED else name


def _what_came(path: Path, encoding: str) -> str:
    """What cannot be decoded; a decoder's own error knows no line."""
    decoder = codecs.getincrementaldecoder(encoding)()
    line = 1
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            try:
                line += decoder.decode(chunk).count("\n")
            except UnicodeDecodeError as error:
                line += error.object[: error.start].decode(encoding, errors="replace").count("\n")
                return f"the byte 0x{error.object[error.start]:02x} in line {line}"
            except UnicodeError:
                return "no byte order mark"
    return f"a character that is cut off in line {line}"
