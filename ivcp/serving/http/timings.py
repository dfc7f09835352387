"""Where a request's time goes, and when it has to be answered."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from opentelemetry import trace


@dataclass
class Timings:
    """Of one request; parts are named in the log and in the metrics."""

    deadline: float | None = None
    """In seconds of `time.monotonic`."""
    seconds: dict[str, float] = field(default_factory=dict)
    batch_sizes: list[int] = field(default_factory=list)
    """For each clip, how many were computed together with it."""
    tokens: int = 0
    """Of all clips of the request."""
    code: str | None = None
    """The code of the problem that was answered; null where none was."""
    key: str | None = None
    """The name of the key that was used."""
    model: str | None = None

    def left_seconds(self) -> float | None:
        """Until the deadline; null without one."""
        return None if self.deadline is None else max(0.001, self.deadline - time.monotonic())

    def add(self, part: str, seconds: float) -> None:
        """Adds to a part's time."""
        self.seconds[part] = self.seconds.get(part, 0.0) + seconds

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        """Times the block, which is a span where traces are collected."""
        started = time.monotonic()
        try:
            with trace.get_tracer("ivcp.serving").start_as_current_span(part):
                yield
        finally:
            self.add(part, time.monotonic() - started)


_current: ContextVar[Timings | None] = ContextVar("timings", default=None)


def current_timings() -> Timings:
    """Those of the request that is being answered; new ones outside of a request."""
    return _current.get() or Timings()


@contextmanager
def timed_request(timings: Timings) -> Iterator[None]:
    """Inside, `current_timings` are these."""
    token = _current.set(timings)
    try:
        yield
    finally:
        _current.reset(token)
