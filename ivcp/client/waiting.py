"""How long a call may take in all, and how long it waits before it is tried again."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_FIRST_SECONDS, _LONGEST_SECONDS = 0.5, 16.0
"""The longest pause before the first repetition, and before any."""


class DeadlineOverError(Exception):
    """The time of a call is over."""


class Deadline:
    """When a call must be done, with all its repetitions."""

    def __init__(self, seconds: float | None) -> None:
        """`seconds` from now; null is never.

        Raises:
            ValueError: there is no time at all.
        """
        if seconds is not None and not seconds > 0:
            raise ValueError(f"deadline_seconds = {seconds}: expected more than 0, or none")
        self.seconds = seconds
        self._end = None if seconds is None else time.monotonic() + seconds

    @property
    def remaining_seconds(self) -> float | None:
        """Null where there is no end."""
        return None if self._end is None else self._end - time.monotonic()

    def check(self) -> None:
        """Called between the pieces of what is sent and received.

        Raises:
            DeadlineOverError: it is over.
        """
        if not self.leaves(0.0):
            raise DeadlineOverError

    def leaves(self, seconds: float) -> bool:
        """Whether there is more time than this."""
        remaining = self.remaining_seconds
        return remaining is None or remaining > seconds


def pause_seconds(tries: int, retry_after_seconds: float | None) -> float:
    """How long to wait after so many tries: exponential backoff with full jitter, behind what the server asked for.

    The jitter comes on top of Retry-After too: clients that were refused together do not come back together.
    """
    most = min(_LONGEST_SECONDS, _FIRST_SECONDS * 2 ** (tries - 1))
    return (retry_after_seconds or 0.0) + random.uniform(0.0, most)


def read_retry_after(header: str | None) -> float | None:
    """Seconds from now, of seconds or a date (RFC 9110, 10.2.3); null where it is neither."""
    if header is None:
        return None
    if header.strip().isdecimal():
        return float(header)
    try:
        date = parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
