"""What the terminal shows of a local run: the lines that steps log. The log file has everything."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

_SHOWN = re.compile(r"^\s*\d\d:\d\d:\d\d (INFO|WARNING|ERROR|CRITICAL) ")
"""Lines of the steps' own logging (`ivcp.tracking.steps`); KFP's own lines go to the log file only."""


@contextlib.contextmanager
def tee(path: Path) -> Iterator[None]:
    """Appends all output to `path`, and shows on the terminal what the steps log."""
    with path.open("a", encoding="utf-8") as file, contextlib.redirect_stdout(_Tee(file, sys.stdout)):
        yield


class _Tee(io.TextIOBase):
    def __init__(self, file: TextIO, terminal: TextIO) -> None:
        self._file, self._terminal, self._line = file, terminal, ""

    def write(self, text: str) -> int:
        self._file.write(text)
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            if _SHOWN.match(line) and "Wrote executor output file" not in line:
                self._show(line.strip() + "\n")
        return len(text)

    def flush(self) -> None:
        self._file.flush()
        self._show("")

    def _show(self, text: str) -> None:
        with contextlib.suppress(OSError):  # a closed terminal does not end the run
            self._terminal.write(text)
            self._terminal.flush()
