"""How outcomes are written: a table at the end, or JSON lines or CSV rows as they come."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Protocol, TextIO

from rich.markup import escape
from rich.table import Table

from ivcp.cli.terminal import show_table
from ivcp.records.answers import Answer, ClassScore, Failure

_COLUMNS = ("video", "label", "label_name", "confidence", "unsure", "code", "detail")
STDOUT = "-"


class Output(Protocol):
    """Where outcomes go."""

    streams_to_terminal: bool
    """Whether lines appear on the terminal as they come, so that they are the progress."""

    def add(self, video: str, outcome: Answer | Failure) -> None:
        """Takes one."""

    def close(self) -> None:
        """Writes what is left."""


class TableOutput:
    """A table at the end; with `shows_others`, with the classes behind the best one."""

    streams_to_terminal = False

    def __init__(self, *, shows_others: bool) -> None:
        self._shows_others = shows_others
        self._table = Table()
        for name in ("video", "prediction", "confidence", *(("then",) if shows_others else ())):
            self._table.add_column(name, overflow="fold")

    def add(self, video: str, outcome: Answer | Failure) -> None:
        """Adds a row."""
        name = escape(printable(video))
        if isinstance(outcome, Failure):
            self._table.add_row(name, escape(printable(f"{outcome.code}: {outcome.detail}")), "–")
            return
        unsure = " (unsure)" if outcome.unsure else ""
        named = {score.label for score in _said(outcome)}
        others = ", ".join(
            f"{score.label_name} {score.confidence:.3f}" for score in outcome.top if score.label not in named
        )
        confidence = ", ".join(f"{score.confidence:.3f}" for score in _said(outcome))
        cells = [f"{escape(outcome.words)}{unsure}", confidence or "–"]
        self._table.add_row(name, *cells, *((escape(others),) if self._shows_others else ()))

    def close(self) -> None:
        """Shows the table."""
        if self._table.row_count:
            show_table(self._table)


class JsonOutput:
    """One JSON object in each line: `video`, and `answer` or `error`."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.streams_to_terminal = stream.isatty()

    def add(self, video: str, outcome: Answer | Failure) -> None:
        """Writes a line."""
        if isinstance(outcome, Failure):
            said = {"error": outcome.model_dump(mode="json", exclude_none=True)}
        else:
            said = {"answer": outcome.model_dump(mode="json", exclude={"frame_images"})}
        line = json.dumps({"video": video, **said}, ensure_ascii=False)
        print(printable(line), file=self._stream, flush=True)

    def close(self) -> None:
        """Everything is written."""


class CsvOutput:
    """A row for each video, in a file or on stdout."""

    def __init__(self, target: Path | TextIO) -> None:
        """A file is replaced when the first outcome is there."""
        self._target = target
        self._stream: TextIO | None = None
        self.streams_to_terminal = not isinstance(target, Path) and target.isatty()

    def add(self, video: str, outcome: Answer | Failure) -> None:
        """Writes a row."""
        cells: tuple[object, ...]
        if isinstance(outcome, Failure):
            cells = (None, None, None, None, outcome.code, printable(outcome.detail))
        else:
            cells = (*_cells(outcome), outcome.unsure, None, None)
        stream = self._stream or self._begun()
        csv.writer(stream, lineterminator="\n").writerow((printable(video), *cells))
        stream.flush()

    def close(self) -> None:
        """Closes the file."""
        if isinstance(self._target, Path) and self._stream is not None:
            self._stream.close()

    def _begun(self) -> TextIO:
        target = self._target
        self._stream = target.open("w", encoding="utf-8", newline="") if isinstance(target, Path) else target
        csv.writer(self._stream, lineterminator="\n").writerow(_COLUMNS)
        return self._stream


def _said(answer: Answer) -> tuple[ClassScore, ...]:
    """The classes that an answer names: one, those that are shown, or that of each head."""
    if answer.heads is not None:
        return tuple(head.top[0] for head in answer.heads.values())
    return answer.top[:1] if answer.labels is None else answer.labels


def _cells(answer: Answer) -> tuple[object, object, object]:
    """Label, name and confidence: of one class; with | between those of several; a number stands in place of a
    label."""
    if answer.value is not None:
        return answer.value, None, None
    if answer.labels is None and answer.heads is None:
        return answer.label, answer.label_name, answer.confidence
    said = _said(answer)
    names = [score.label_name for score in said]
    if answer.heads is not None:
        names = [f"{head}={name}" for head, name in zip(answer.heads, names, strict=True)]
    return (
        "|".join(str(score.label) for score in said),
        "|".join(names),
        "|".join(f"{score.confidence:g}" for score in said),
    )


def printable(text: str) -> str:
    """The text, where names of files that are no UTF-8 stand escaped, as JSON escapes them."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
