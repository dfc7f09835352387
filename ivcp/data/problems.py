"""What is wrong with rows: collected, so that all of it is said at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ivcp.data.prompts import PromptError

_MOST_PROBLEMS = 20
_MOST_ROWS = 5


class AnnotationError(ValueError):
    """Annotations that cannot be used; the message names data set, file, row and value, and what to do."""


class RowError(ValueError):
    """What is wrong with one row; the message does not say which row it is.

    Rows with the same `kind` are reported together, by the message of the first of them: give one where messages
    differ in a value only. By default it is the message.
    """

    def __init__(self, message: str, *, kind: str | None = None) -> None:
        super().__init__(message)
        self.kind = kind or message


@dataclass
class _Kind:
    message: str
    rows: list[int] = field(default_factory=list)


class Problems:
    """Collects what is wrong with rows, to say all of it at once."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, str], _Kind] = {}

    def __len__(self) -> int:
        return sum(len(kind.rows) for kind in self._kinds.values())

    def add(self, dataset: str, file: Path, row: int, message: str, *, kind: str | None = None) -> None:
        """Notes a problem of one row of a file; `kind` as in `RowError`."""
        where = f"data set {dataset} ({file})"
        self._kinds.setdefault((where, kind or message), _Kind(message)).rows.append(row)

    @contextmanager
    def collected(self, dataset: str, file: Path, row: int) -> Iterator[None]:
        """Notes the `RowError` or `PromptError` that its block raises."""
        try:
            yield
        except RowError as error:
            self.add(dataset, file, row, str(error), kind=error.kind)
        except PromptError as error:
            self.add(dataset, file, row, str(error))

    def raise_if_any(self) -> None:
        """Raises:
        AnnotationError: there are problems; the message has one line per kind, most frequent first.
        """
        if not self._kinds:
            return
        found = sorted(((where, kind) for (where, _), kind in self._kinds.items()), key=lambda item: -len(item[1].rows))
        lines = [f"  {where} {_name_rows(kind.rows)}: {kind.message}" for where, kind in found[:_MOST_PROBLEMS]]
        left_out = found[_MOST_PROBLEMS:]
        if left_out:
            lines.append(f"  and {sum(len(kind.rows) for _, kind in left_out)} problems of {len(left_out)} more kinds")
        raise AnnotationError(f"{len(self)} problem(s) in the annotations:\n" + "\n".join(lines))


def _name_rows(rows: Sequence[int]) -> str:
    shown = ", ".join(str(row) for row in rows[:_MOST_ROWS])
    more = f" and {len(rows) - _MOST_ROWS} more" if len(rows) > _MOST_ROWS else ""
    return f"row{'s' if len(rows) > 1 else ''} {shown}{more}"
