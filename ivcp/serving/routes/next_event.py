"""The next of several events that are sent as they come, as long as there is time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TypeVar

import anyio

from ivcp.serving.http.problems import ProblemError
from ivcp.serving.http.timings import current_timings

EVENTS = "text/event-stream"
_SECONDS_TO_SAY_SO = 0.2
EventT = TypeVar("EventT")


async def next_event(events: AsyncIterator[EventT], *, too_late: str) -> EventT | None:
    """The next event; null behind the last one.

    Raises:
        ProblemError: the request's time is over, a moment before its connection is cut for that; `too_late` says so.
    """
    left = current_timings().left_seconds()
    try:
        with anyio.fail_after(None if left is None else max(0.0, left - _SECONDS_TO_SAY_SO)):
            return await anext(events, None)
    except TimeoutError as error:
        raise ProblemError("deadline_exceeded", too_late) from error
