"""CSV and TSV files with a row per clip."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from ivcp.data.tables import Line, other_delimiter, read_delimiter, read_table, surplus_cells
from ivcp.data.values import is_missing
from ivcp.imports.listing import ImportRefusedError, Listing, Reading, Sample, Source, refused

NEEDED, OPTIONAL = ("path", "label"), ("start", "end", "group", "split")


def read_tables(reading: Reading) -> Listing:
    """Files with a header: path, label, and where they are there start, end (seconds or h:mm:ss), group and split.

    Raises:
        ImportRefusedError: a file has no such columns.
    """
    return Listing(tuple(sample for source in reading.sources for sample in _read_file(reading, source)))


def read_rows(
    source: Path,
    reading: Reading,
    *,
    needed: Sequence[str],
    optional: Sequence[str],
    columns: Mapping[str, str] | None = None,
) -> list[dict[str, str]]:
    """The rows of a file with a header, under the names that IVCP has for the columns; `row` counts them from 0.

    `columns` is what the file calls them, where that is something else.

    Raises:
        ImportRefusedError: a column is missing; the message names those that came.
    """
    with refused(source, takes_encoding=True):
        lines = read_table(source, delimiter=delimiter_of(reading), encoding=reading.options.encoding)
        header = next(lines, Line(1, [])).cells
        place = _places(source, header, columns or {}, (*needed, *optional))
        missing = [name for name in needed if name not in place]
        if missing:
            raise ImportRefusedError(_explain_missing(source, header, missing))
        rows = []
        for row, line in enumerate(lines):
            wrong = surplus_cells(line, header)
            if len(line.cells) <= max(place[name] for name in needed):
                wrong = f"line {line.number} has {len(line.cells)} cell(s), the header {len(header)}"
            if wrong:
                reading.problem(source, row, wrong)
                continue
            cells = {name: line.cells[at].strip() for name, at in place.items() if at < len(line.cells)}
            rows.append(cells | {"row": str(row)})
    return rows


def seconds_of(text: str | None, what: str) -> float | None:
    """Seconds of a cell: a number, or `m:ss` or `h:mm:ss`; None where it is empty.

    Raises:
        ValueError: it is neither.
    """
    if text is None or is_missing(text):
        return None
    try:
        seconds = 0.0
        for part in text.split(":"):
            seconds = 60 * seconds + float(part)
    except ValueError:
        raise ValueError(f"{what} = {text!r}: expected seconds, or h:mm:ss") from None
    if not math.isfinite(seconds):
        raise ValueError(f"{what} = {text!r}: expected seconds, or h:mm:ss")
    return seconds


def _read_file(reading: Reading, source: Source) -> list[Sample]:
    samples = []
    for cells in read_rows(source.path, reading, needed=NEEDED, optional=OPTIONAL, columns=reading.options.columns):
        row = int(cells["row"])
        try:
            start, end = (seconds_of(cells.get(name), name) for name in ("start", "end"))
        except ValueError as error:
            reading.problem(source.path, row, str(error))
            continue
        samples.append(
            Sample(
                video=cells["path"],
                label=cells["label"],
                file=source.path,
                row=row,
                split=reading.split(cells.get("split"), source.path, row) or source.split,
                group=None if is_missing(cells.get("group")) else cells["group"],
                start_seconds=start,
                end_seconds=end,
            )
        )
    return samples


def delimiter_of(reading: Reading) -> str | None:
    """The delimiter that the user names, or None.

    Raises:
        ImportRefusedError: it is no character.
    """
    given = reading.options.delimiter
    delimiter = None if given is None else read_delimiter(given)
    if given is not None and delimiter is None:
        raise ImportRefusedError(f"--delimiter {given!r}: expected one character, or tab")
    return delimiter


def _places(source: Path, header: Sequence[str], columns: Mapping[str, str], names: Sequence[str]) -> dict[str, int]:
    """Where each of IVCP's columns stands."""
    unknown = sorted(set(columns) - set(names))
    if unknown:
        raise ImportRefusedError(f"--column {unknown[0]}=…: expected one of {', '.join(names)}")
    absent = [f"{name}={wanted}" for name, wanted in columns.items() if wanted not in header]
    if absent:
        raise ImportRefusedError(_explain_missing(source, header, absent))
    return {name: header.index(columns.get(name, name)) for name in names if columns.get(name, name) in header}


def _explain_missing(source: Path, header: Sequence[str], missing: Sequence[str]) -> str:
    wanted = f"{source}: expected the column(s) {', '.join(missing)}"
    other = other_delimiter(header[0]) if len(header) == 1 else None
    if other:
        return f"{wanted}; its header is one column, {header[0]!r}: say --delimiter {other}"
    return (
        f"{wanted}; it has {', '.join(header) or 'no header'}: name yours, e.g. --column {missing[0].split('=')[0]}=…"
    )
