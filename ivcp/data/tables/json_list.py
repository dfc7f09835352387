"""Reads a JSON list element by element, so that a file of any size needs little memory."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, TextIO

_CHUNK = 1 << 18
"""Characters that are read at once."""
_SPACE = re.compile(r"[ \t\n\r]*")


def iterate_list(file: TextIO) -> Iterator[Any]:
    """The elements of the JSON list that `file` holds, as `json.load` would give them.

    Raises:
        json.JSONDecodeError: the file is no list of valid JSON; elements in front of the error were given already.
        ValueError: it holds a number of more digits than Python reads.
        RecursionError: an element is nested too deeply.
    """
    reader = _Reader(file)
    if reader.next_character() != "[":
        raise reader.error("Expecting '['")
    reader.skip(1)
    if reader.next_character() == "]":
        reader.skip(1)
    else:
        yield from _elements(reader)
    if reader.next_character():
        raise reader.error("Extra data")


def _elements(reader: _Reader) -> Iterator[Any]:
    while True:
        yield reader.element()
        delimiter = reader.next_character()
        if delimiter not in (",", "]"):
            raise reader.error("Expecting ',' delimiter")
        reader.skip(1)
        if delimiter == "]":
            return
        if reader.next_character() == "]":
            raise reader.error("Illegal trailing comma before end of array")


class _Reader:
    """The part of the file that is being parsed."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._text = ""
        self._start = 0
        self._lines_before = 0
        """Lines of the file in front of `_text`."""
        self._columns_before = 0
        """Characters of its first line in front of `_text`."""
        self._decoder = json.JSONDecoder()

    def next_character(self) -> str:
        """The next one that is no white space, which is passed; empty at the end."""
        while True:
            match = _SPACE.match(self._text, self._start)
            assert match is not None, "it matches nothing, too"
            self._start = match.end()
            if self._start < len(self._text) or not self._read_on(_CHUNK):
                return self._text[self._start : self._start + 1]

    def skip(self, count: int) -> None:
        self._start += count

    def element(self) -> Any:
        """The next value, whole."""
        self.next_character()
        wanted = _CHUNK
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._start)
            except json.JSONDecodeError as error:
                if not self._read_on(wanted):
                    raise self.error(error.msg, error.pos) from None
            else:
                # A number may continue after what was read.
                if end < len(self._text) or not self._read_on(wanted):
                    self._start = end
                    return value
            wanted *= 2  # a long element is not parsed over and over from its start

    def error(self, message: str, position: int | None = None) -> json.JSONDecodeError:
        """Counts lines from the start of the file."""
        error = json.JSONDecodeError(message, self._text, self._start if position is None else position)
        column = error.colno + (self._columns_before if error.lineno == 1 else 0)
        error.args = (f"{message}: line {error.lineno + self._lines_before} column {column}",)
        return error

    def _read_on(self, count: int) -> bool:
        more = self._file.read(count)
        if not more:
            return False
        newline = self._text.rfind("\n", 0, self._start)
        self._lines_before += self._text.count("\n", 0, self._start)
        self._columns_before = self._start - newline - 1 if newline >= 0 else self._columns_before + self._start
        self._text, self._start = self._text[self._start :] + more, 0
        return True
