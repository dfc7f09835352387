"""Progress of long work: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Generator, Iterable, Iterator
from datetime import timedelta
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

ItemT = TypeVar("ItemT")

log = logging.getLogger(__name__)
_SECONDS_BETWEEN_LINES = 5.0


def with_progress(items: Iterable[ItemT], *, total: int, what: str) -> Generator[ItemT, None, None]:
    """Yields `items` and shows how many of `total` are done, how fast, and how long the rest will take.

    `what` says what they are, e.g. "videos checked".
    """
    if sys.stderr.isatty():
        yield from _with_bar(items, total=total, what=what)
        return
    start = last = time.monotonic()
    done = 0
    for done, item in enumerate(items, start=1):
        yield item
        if time.monotonic() - last > _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            log.info("%s: %s", what, describe(done, total, last - start))
    log.info("%s: %d in %.1f s", what, done, time.monotonic() - start)


def describe(done: int, total: int, seconds: float) -> str:
    """For example "120 of 400 (40.0 per second, 0:00:07 left)"."""
    speed = done / seconds
    left = timedelta(seconds=round(max(0, total - done) / speed))
    return f"{done} of {total} ({speed:.{1 if speed < 100 else 0}f} per second, {left} left)"


def _with_bar(items: Iterable[ItemT], *, total: int, what: str) -> Iterator[ItemT]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        _Speed(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield from progress.track(items, total=total, description=what)


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.1f}/s")
