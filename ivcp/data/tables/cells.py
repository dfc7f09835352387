"""CSV and TSV files, line by line: their delimiter is found in the header, and what is ambiguous is refused."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path

from ivcp.data.tables.text import TableError, opened

WITH_TABS = (".tsv", ".tab")
_DELIMITERS = (",", ";", "\t", "|")
"""Those that are found without being named."""
_WORDS = {"tab": "\t", "\\t": "\t", "space": " "}
_MOST_CHARACTERS = 2**24
"""Of one cell: a longer one is a quote that is never closed."""


@dataclass(frozen=True)
class Line:
    """The cells of one line."""

    number: int
    """From 1; the first, where a cell in quotes goes over several."""
    cells: list[str]


def read_table(path: Path, *, delimiter: str | None = None, encoding: str | None = None) -> Iterator[Line]:
    """The lines of a CSV or TSV file, one by one: first its header, names stripped, then the lines that are not blank.

    `delimiter` is by default a tab for .tsv and .tab, else a comma; or the one of comma, semicolon, tab and | that
    divides the header, where that one does not. `encoding` as in `read_text`.

    Raises:
        TableError: there is no such file or encoding, two columns have one name, or a line is no line of a CSV file.
        EncodingError: the file is in another encoding.
    """
    lines = read_cells(path, delimiter=delimiter, encoding=encoding)
    header = next(lines, None)
    if header is None:
        return
    names = [name.strip() for name in header.cells]
    twice = [name for name, count in Counter(names).items() if name and count > 1]
    if twice:
        raise TableError(f"{path} line {header.number}: two columns are named {', '.join(twice)}: rename one of them")
    yield Line(header.number, names)
    yield from lines


def read_cells(path: Path, *, delimiter: str | None = None, encoding: str | None = None) -> Iterator[Line]:
    """The same of a file without a header."""
    csv.field_size_limit(_MOST_CHARACTERS)  # of the whole process: csv knows no other
    with opened(path, encoding, newline="") as file:
        blank, header = 0, ""
        for header in file:
            if header.strip():
                break
            blank += 1
        reader = csv.reader(chain([header], file), delimiter=delimiter or _delimiter(path, header), strict=True)
        while True:
            number = blank + reader.line_num + 1
            try:
                cells = next(reader, None)
            except csv.Error as error:
                raise TableError(_explain(error, path, number, blank + reader.line_num)) from error
            if cells is None:
                return
            if any(cell.strip() for cell in cells):
                yield Line(number, cells)


def read_named_cells(
    path: Path, *, delimiter: str | None = None, encoding: str | None = None
) -> Iterator[dict[str, str | None]]:
    """The lines of a file with the header's names as keys, None where a line is too short; errors as in `read_table`.

    Raises:
        TableError: a line has more cells than the header.
    """
    lines = read_table(path, delimiter=delimiter, encoding=encoding)
    header = next(lines, Line(1, [])).cells
    for line in lines:
        surplus = surplus_cells(line, header)
        if surplus:
            raise TableError(f"{path} {surplus}")
        yield dict(zip_longest(header, line.cells[: len(header)]))


def surplus_cells(line: Line, header: Sequence[str]) -> str | None:
    """What to say of a line with more cells than the header; None where these are blank."""
    if not any(cell.strip() for cell in line.cells[len(header) :]):
        return None
    return (
        f"line {line.number} has {len(line.cells)} cells, the header {len(header)} ({', '.join(line.cells)[:200]!r}): "
        'put a text that holds the delimiter in quotes ("…")'
    )


def read_delimiter(word: str) -> str | None:
    """The character that a user names, as such or as tab or space; None where it is none."""
    delimiter = _WORDS.get(word, word)
    return delimiter if len(delimiter) == 1 else None


def other_delimiter(header: str) -> str | None:
    """A delimiter, as a user names it, that would divide a header which the chosen one does not."""
    return next((repr(mark) for mark in (*_DELIMITERS, " ") if mark in header), None)


def _delimiter(path: Path, header: str) -> str:
    """The usual one of this kind of file, or the first that divides its header."""
    usual = "\t" if path.name.lower().removesuffix(".gz").endswith(WITH_TABS) else ","
    for delimiter in (usual, *_DELIMITERS):
        if len(next(csv.reader([header], delimiter=delimiter), [])) > 1:
            return delimiter
    return usual


def _explain(error: csv.Error, path: Path, first: int, last: int) -> str:
    lines = f"line {first}" if last <= first else f"lines {first} to {last}"
    return (
        f'{path} {lines}: no line of a CSV file ({error}): is a quote (") opened there and not closed? Inside a text '
        'in quotes it is written twice ("")'
    )
