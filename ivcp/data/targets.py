"""What a row is labelled with where that is not one class: several classes, a class of each head, or a number."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ivcp.data.problems import RowError
from ivcp.data.values import as_list, is_missing, offered, read_label, shown
from ivcp.records.problem_types import MULTI_LABEL, REGRESSION, SINGLE_LABEL, ProblemType, TargetKind


@dataclass(frozen=True)
class RowTarget:
    """The label of a row as it stands there."""

    label: int | str | None = None
    """The class, an id or a name."""
    labels: tuple[int | str, ...] | None = None
    """Several classes, or that of each head."""
    value: float | None = None


@dataclass(frozen=True)
class Targets:
    """What rows are labelled with, as a run's settings ask for it."""

    problem_type: ProblemType = SINGLE_LABEL
    heads: tuple[str, ...] = ()
    """Columns with a class each."""

    @property
    def kind(self) -> TargetKind:
        """In one word."""
        if self.heads:
            return "heads"
        return {REGRESSION: "value", MULTI_LABEL: "classes"}.get(self.problem_type, "class")  # type: ignore[return-value]

    def columns(self, column: str) -> tuple[str, ...]:
        """The keys of a row that hold its label; `column` is that of a label in one column."""
        return self.heads or (column,)

    def read(self, raw: Mapping[str, Any], column: str) -> RowTarget:
        """The label of a row.

        Raises:
            RowError: there is none, or it is not of this kind.
        """
        match self.kind:
            case "heads":
                return RowTarget(labels=tuple(_read_head(raw, head) for head in self.heads))
            case "classes":
                return RowTarget(labels=read_labels(raw, column))
            case "value":
                return RowTarget(value=read_value(raw, column))
            case _:
                return RowTarget(label=read_label(raw, column))


def read_labels(raw: Mapping[str, Any], column: str) -> tuple[int | str, ...]:
    """Classes as they stand there: a list, a JSON list in a cell of text, or a single one.

    Raises:
        RowError: there are none, one is no class, or one comes twice.
    """
    found = raw.get(column)
    if is_missing(found):
        raise RowError(f"{column} is missing: expected a list of classes{offered(raw, 'action_label', column)}")
    entries = as_list(found)
    if isinstance(found, str) and found.lstrip().startswith("[") and entries == [found]:
        raise RowError(
            f'{column} = {shown(found)}: expected a JSON list, with double quotes: ["wave", "squat"]',
            kind=f"{column} no JSON",
        )
    if not entries:
        raise RowError(
            f"{column} = []: expected at least one class; a clip that shows none of them gets a class of its own, such "
            'as "none"',
            kind=f"{column} empty",
        )
    for entry in entries:
        if is_missing(entry) or isinstance(entry, list):
            raise RowError(
                f"{column} = {shown(found)}: expected class ids or names in the list, and {shown(entry)} is neither",
                kind=f"{column} entry",
            )
    labels = tuple(read_label({column: entry}, column) for entry in entries)
    twice = [label for number, label in enumerate(labels) if label in labels[:number]]
    if twice:
        raise RowError(f"{column} = {shown(found)}: {shown(twice[0])} stands there twice", kind=f"{column} twice")
    return labels


def read_value(raw: Mapping[str, Any], column: str) -> float:
    """The number that is to be predicted; a cell of text may hold it.

    Raises:
        RowError: there is none, or it is no finite number.
    """
    found = raw.get(column)
    if isinstance(found, float) and math.isnan(found):
        raise RowError(f"{column} = nan: expected a number: leave rows without one out", kind=f"{column} nan")
    if is_missing(found):
        raise RowError(f"{column} is missing: expected a number{offered(raw, 'action_label', column)}")
    value = _number(found)
    if value is None:
        hint = "; a decimal point is written as ." if isinstance(found, str) and "," in found else ""
        raise RowError(f"{column} = {shown(found)}: expected a number{hint}", kind=f"{column} {type(found).__name__}")
    if not math.isfinite(value):
        raise RowError(f"{column} = {shown(found)}: expected a finite number", kind=f"{column} infinite")
    return value


def _number(found: Any) -> float | None:
    if isinstance(found, bool) or not isinstance(found, int | float | str):
        return None
    try:
        return float(found)
    except (ValueError, OverflowError):
        return None


def _read_head(raw: Mapping[str, Any], head: str) -> int | str:
    if is_missing(raw.get(head)):
        there = ", ".join(str(key) for key, value in raw.items() if not is_missing(value))
        raise RowError(
            f"{head} is missing: expected the class of this head (action_heads); the row has {there or 'nothing'}",
            kind=f"{head} missing",
        )
    return read_label(raw, head)
