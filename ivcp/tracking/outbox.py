"""What is to be told to MLflow, handed in by a thread of its own: a server that is slow or away costs no training time.

What waits during an outage lies on disk too (`ivcp.tracking.spool`), so that neither the end of the process nor its
death loses it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any

from ivcp.tracking.entries import Moments, taken_together
from ivcp.tracking.outages import first_line, is_refused, outages
from ivcp.tracking.spool import Spool

log = logging.getLogger(__name__)

_PAUSE_SECONDS = 30.0
"""After a call that failed."""
_LAST_PAUSE_SECONDS = 2.0
"""The same when the step has ended, and waits."""

_MOST_TOGETHER = 200
"""Entries."""


def hand_in(entry: Any, deliver: Callable[[Any], None], *, server: str) -> None:
    """Delivers an entry; one that the server refuses, or that cannot be told, is left out, with a warning.

    Raises:
        ValueError: there is no run to tell it to.
        Exception: one of `outages`.
    """
    try:
        deliver(entry)
    except outages() as error:
        if not is_refused(error):
            raise
        if isinstance(entry, Moments) and len(entry.points) > 1:
            for points in entry.points:
                hand_in(points, deliver, server=server)
        else:
            log.warning("MLflow (%s) does not take an entry: %s", server, first_line(error))
    except Exception as error:  # an artifact store's own, such as Azure's; or a text with half a surrogate pair
        if isinstance(error, ValueError) and not isinstance(error, UnicodeError):
            raise
        log.warning("MLflow (%s) is not told an entry", server, exc_info=error)


class Outbox:
    """Entries in their order; those that fail for an outage are handed in later, and the last time at the end."""

    def __init__(self, server: str, deliver: Callable[[Any], None], spool: Spool) -> None:
        """`server` is what messages call it; `deliver` hands one entry in."""
        self._server, self._deliver, self._spool = server, deliver, spool
        self._entries: deque[Any] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._next_try = 0.0
        self._is_away = self._is_closed = self._is_ending = False
        self._give_up_at = 0.0

    def open(self, first: Any) -> None:
        """Hands in the first entry now.

        Raises:
            ValueError: the settings name what the server does not have; only where it answers.
        """
        self._entries.append(first)
        self._try_first(raises=True)

    def send(self, entry: Any) -> None:
        """Leaves an entry to the thread; it returns at once."""
        with self._changed:
            if self._is_closed or self._is_ending:
                return
            self._entries.append(entry)
            if self._is_away:
                self._spool.keep([entry])
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self) -> None:
        """Waits until everything is handed in; not while there is an outage."""
        with self._changed:
            self._changed.wait_for(lambda: not self._entries or self._is_away or self._thread is None)

    def close(self, patience_seconds: float = 0.0) -> None:
        """Hands in what waits, for the last time, and says how much is missing.

        A server that is away is waited for so long; a call that has begun is not broken off.
        """
        with self._changed:
            self._is_ending, self._give_up_at = True, time.monotonic() + patience_seconds
            self._next_try = 0.0
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
        elif self._entries:
            self._work()
        if self._entries:
            is_kept = self._spool.keep_at_last(self._entries)
            log.warning(
                "%d entries of this run are missing in MLflow (%s): %s",
                len(self._entries),
                self._server,
                f"they are kept in {self._spool.folder}, and the next step that logs there hands them in"
                if is_kept
                else "they could not be kept, either",
            )
        self._spool.close()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._is_ending and (not self._entries or time.monotonic() < self._next_try):
                    pause = max(0.01, self._next_try - time.monotonic()) if self._entries else None
                    self._changed.wait(pause)
                if not self._entries:
                    return
                is_last = self._is_ending and time.monotonic() >= self._give_up_at
            if not self._try_first() and self._is_ending:
                if is_last:
                    return
                time.sleep(_LAST_PAUSE_SECONDS)

    def _try_first(self, *, raises: bool = False) -> bool:
        """Whether the first entries are done with: handed in, or refused."""
        with self._changed:
            entry, number = taken_together(islice(self._entries, _MOST_TOGETHER))
        try:
            hand_in(entry, self._deliver, server=self._server)
        except outages() as error:
            self._note_outage(error)
            return False
        except ValueError as error:
            if raises:
                raise
            log.warning("nothing is logged to MLflow (%s): %s", self._server, error)
            with self._changed:
                self._is_closed = True
                self._entries.clear()
                self._spool.remove()
                self._changed.notify_all()
            return True
        self._note_done(number)
        return True

    def _note_done(self, number: int) -> None:
        with self._changed:
            for _ in range(number):
                self._entries.popleft()
            if not self._entries:
                self._spool.remove()
                if self._is_away:
                    self._is_away = False
                    log.info("MLflow (%s) answers again, and has everything", self._server)
            self._changed.notify_all()

    def _note_outage(self, error: Exception) -> None:
        with self._changed:
            self._next_try = time.monotonic() + _PAUSE_SECONDS
            if self._is_away:
                return
            self._is_away = True
            self._spool.keep(self._entries)
            self._changed.notify_all()
        log.warning(
            "MLflow (%s) does not do its part: %s. The work goes on; what is missing there is handed in when it "
            "answers again",
            self._server,
            first_line(error),
        )
