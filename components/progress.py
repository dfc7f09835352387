"""Progress of long work: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track

ItemT = TypeVar("ItemT")

log = logging.getLogger(__name__)
_SECONDS_BETWEEN_LINES = 5.0


def with_progress(items: Iterable[ItemT], *, total: int, what: str) -> Iterator[ItemT]:
    """Yields `items` and shows how many of `total` are done; `what` says what they are, e.g. "videos checked"."""
    if sys.stderr.isatty():
        yield from track(items, description=what, total=total, console=Console(stderr=True))
        return
    start = last = time.monotonic()
    done = 0
    for done, item in enumerate(items, start=1):
        yield item
        if time.monotonic() - last > _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            log.info("%s: %d of %d (%.0f per second)", what, done, total, done / (last - start))
    log.info("%s: %d in %.1f s", what, done, time.monotonic() - start)
