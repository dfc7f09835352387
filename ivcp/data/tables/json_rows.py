"""JSON: whole values, and files of rows as a list or line by line, whatever they are named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from ivcp.data.tables.json_list import iterate_list
from ivcp.data.tables.text import TableError, opened, read_text

_ROWS = "expected a list of rows, [ … ], or one whole row in each line"
_MOST_KEYS = 10


def read_json(path: Path, *, encoding: str | None = None, shown: str | None = None) -> Any:
    """The value of a JSON file, whole; parameters and errors as in `read_text` and `parse_json`."""
    return parse_json(read_text(path, encoding=encoding, shown=shown), shown or str(path))


def parse_json(text: str, where: str) -> Any:
    """The value of a JSON text that `where` holds.

    Raises:
        TableError: it is not valid JSON, or nested too deeply.
    """
    try:
        return json.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError) as error:
        raise _explain(error, where) from error


def read_json_rows(path: Path, *, one_per_line: bool, encoding: str | None = None) -> Iterator[Any]:
    """The rows of a list, or of one JSON value per line, one by one: the first character shows which of both it is.

    `one_per_line` says what the file's name promises: then a single line is a row.

    Raises:
        TableError: the file holds neither.
        EncodingError: it is in another encoding.
    """
    if _first_character(path, encoding) == "[":
        yield from _read_list(path, encoding)
        return
    rows = _read_lines(path, encoding)
    start = [] if one_per_line else list(islice(rows, 2))
    if len(start) == 1 and isinstance(start[0], dict):
        keys = ", ".join(list(start[0])[:_MOST_KEYS])
        raise TableError(f"{path}: {_ROWS}, got one object with the keys {keys}: put its rows into a list")
    yield from start
    yield from rows


def _first_character(path: Path, encoding: str | None) -> str:
    with opened(path, encoding) as file:
        while character := file.read(1):
            if not character.isspace():
                return character
    return ""


def _read_list(path: Path, encoding: str | None) -> Iterator[Any]:
    row = 0
    with opened(path, encoding) as file:
        rows = iterate_list(file)
        while True:
            try:
                value = next(rows)
            except StopIteration:
                return
            except UnicodeError:
                raise
            except json.JSONDecodeError as error:
                raise _explain(error, str(path)) from error
            except (ValueError, RecursionError) as error:
                raise _explain(error, f"{path} row {row}") from error
            yield value
            row += 1


def _read_lines(path: Path, encoding: str | None) -> Iterator[Any]:
    with opened(path, encoding) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            where = f"{path} line {number}"
            try:
                yield json.loads(line.removeprefix("\ufeff"))
            except json.JSONDecodeError as error:
                raise TableError(f"{where} is not valid JSON ({error.msg} in column {error.colno}): {_ROWS}") from error
            except (ValueError, RecursionError) as error:
                raise _explain(error, where) from error


def _explain(error: ValueError | RecursionError, where: str) -> TableError:
    if isinstance(error, RecursionError):
        return TableError(f"{where} is nested too deeply: expected lists and objects of a few levels; is it damaged?")
    if isinstance(error, json.JSONDecodeError):
        return TableError(f"{where} is not valid JSON: {error}")
    return TableError(f"{where} holds a number of thousands of digits: expected fewer; is it damaged?")
