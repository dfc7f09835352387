"""CSV and TSV files with a row per clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ivcp.data.tables import read_cells, surplus_cells
from ivcp.imports.listing import ImportRefusedError, Listing, Reading, Sample, Source, refused

NEEDED, OPTIONAL = ("path", "label"), ("start", "end", "group", "split")
_OTHER_DELIMITERS = {",": "','", "\t": "'\\t'", ";": "';'", "|": "'|'", " ": "' '"}


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
    with refused():
        lines = read_cells(source, delimiter=_delimiter(reading), encoding=reading.options.encoding)
        header = [name.strip() for name in next(lines, [])]
        place = _places(source, header, columns or {}, (*needed, *optional))
        missing = [name for name in needed if name not in place]
        if missing:
            raise ImportRefusedError(_explain_missing(source, header, missing))
        rows = []
        for row, cells in enumerate(lines):
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) <= max(place[name] for name in needed):
                reading.problem(source, row, f"{len(cells)} column(s): the header has {len(header)}")
                continue
            if any(cells[len(header) :]):
                reading.problem(source, row, surplus_cells(cells, header))
                continue
            rows.append({n: cells[at].strip() for n, at in place.items() if at < len(cells)} | {"row": str(row)})
    return rows


def seconds_of(text: str | None, what: str) -> float | None:
    """Seconds of a cell: a number, or `m:ss` or `h:mm:ss`; None where it is empty.

    Raises:
        ValueError: it is neither.
    """
    if not text:
        return None
    try:
        seconds = 0.0
        for part in text.split(":"):
            seconds = 60 * seconds + float(part)
    except ValueError:
        raise ValueError(f"{what} = {text!r}: expected seconds, or h:mm:ss") from None
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
                group=cells.get("group") or None,
                start_seconds=start,
                end_seconds=end,
            )
        )
    return samples


def _delimiter(reading: Reading) -> str | None:
    given = reading.options.delimiter
    if given is None:
        return None
    delimiter = {"tab": "\t", "\\t": "\t", "space": " "}.get(given, given)
    if len(delimiter) != 1:
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
    other = [shown for mark, shown in _OTHER_DELIMITERS.items() if mark in "".join(header)]
    if len(header) == 1 and other:
        return f"{wanted}; its header is one column, {header[0]!r}: say --delimiter {other[0]}"
    return (
        f"{wanted}; it has {', '.join(header) or 'no header'}: name yours, e.g. --column {missing[0].split('=')[0]}=…"
    )
