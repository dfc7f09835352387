"""A folder or s3:// prefix that one process works in, until it ends or falls silent.

The owner writes `.owner` there: who it is, and a number that it raises every `BEAT_SECONDS`. Processes of one machine
know by the lock on that file whether its owner lives. Where that cannot tell (another machine that shares the folder,
or S3) a newcomer watches: a number that rises belongs to a living owner; one that has stood still for
`SILENCE_SECONDS` belongs to a dead one, whose place is taken.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from ivcp.storage.claims import Claim, InUseError, Place, claim_in_folder, claim_on_s3
from ivcp.storage.uris import as_path, is_s3

BEAT_SECONDS = 10.0
SILENCE_SECONDS = 60.0

log = logging.getLogger(__name__)


class Ownership:
    """That this process works alone in a place."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.lost_to: str | None = None
        """Who took the place, because this process had fallen silent."""

    def check(self) -> None:
        """Raises:
        InUseError: it does not any more.
        """
        if self.lost_to is not None:
            raise InUseError(
                f"{self.lost_to} has taken over {self.uri}, because this process gave no sign of life for "
                f"{SILENCE_SECONDS:.0f} s"
            )


@contextlib.contextmanager
def owned(uri: str | Path, *, advice: str = "wait for its end", watch: bool = True) -> Iterator[Ownership]:
    """Inside, no other process or thread owns the folder or prefix; a thread that owns it already may own it again.

    Args:
        uri: a folder that is there, or an s3:// prefix.
        advice: what to do where another process works there.
        watch: whether to wait for a sign of life where only that can tell; else such an owner counts as alive.

    Raises:
        InUseError: another process works there.
        PermissionError, OSError: it cannot be written.
        ConnectionError: the server cannot be reached.
    """
    place_name = str(uri) if is_s3(uri) else str(as_path(uri).resolve())
    key = os.getpid(), threading.get_ident(), place_name
    if (present := _owned_here.get(key)) is not None:
        yield present
        return
    ownership = Ownership(str(uri))
    opened = claim_on_s3(place_name) if is_s3(uri) else claim_in_folder(Path(place_name), advice=advice)
    with opened as place, _claimed(place, ownership, advice=advice, watch=watch):
        _owned_here[key] = ownership
        try:
            yield ownership
        finally:
            del _owned_here[key]


@contextlib.contextmanager
def owned_in_turn(uri: str | Path) -> Iterator[Ownership]:
    """`owned`, which waits until others have ended."""
    is_said = False
    with contextlib.ExitStack() as stack:
        while True:
            try:
                ownership = stack.enter_context(owned(uri))
                break
            except InUseError as error:
                if not is_said:
                    log.info("waiting: %s", str(error).removesuffix(": wait for its end"))
                is_said = True
                time.sleep(min(5.0, BEAT_SECONDS))
        yield ownership


_owned_here: dict[tuple[int, int, str], Ownership] = {}
"""By process (a forked one owns nothing), thread and place."""


def check_owned() -> None:
    """Raises:
    InUseError: another process has taken over what this one owned.
    """
    for (process, _, _), ownership in list(_owned_here.items()):
        if process == os.getpid():
            ownership.check()


@contextlib.contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Waits until no other process of this machine is inside for `folder`."""
    with (folder / ".choosing").open("a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _claimed(place: Place, ownership: Ownership, *, advice: str, watch: bool) -> Iterator[None]:
    claim = Claim.new()
    present = place.read()
    if present is not None:
        _wait_for_silence(place, present, ownership.uri, advice=advice, watch=watch)
    if not place.write(claim):
        raise InUseError(f"{place.read() or 'another process'} works in {ownership.uri}: {advice}")
    ended = threading.Event()
    beats = threading.Thread(target=_beat, args=(place, claim, ownership, ended), daemon=True, name="owner")
    beats.start()
    try:
        yield
    finally:
        ended.set()
        beats.join()
        if ownership.lost_to is None:
            with _logged(ownership.uri):
                place.write(None)


def _wait_for_silence(place: Place, present: Claim, uri: str, *, advice: str, watch: bool) -> None:
    """Returns when the owner that is written there has ended, or seems dead.

    Raises:
        InUseError: it lives, or nobody may `watch`.
    """
    if not watch:
        raise InUseError(f"{present} works in {uri}: {advice}")
    log.info("%s works in %s, or was killed: waiting up to %.0f s for a sign of life", present, uri, SILENCE_SECONDS)
    ends = time.monotonic() + SILENCE_SECONDS
    while time.monotonic() < ends:
        time.sleep(min(1.0, BEAT_SECONDS))
        found = place.read()
        if found is None:
            return
        if found != present:
            raise InUseError(f"{found} works in {uri}: {advice}")
    log.warning("%s, which worked in %s, is silent: going on in its place", present, uri)


def _beat(place: Place, claim: Claim, ownership: Ownership, ended: threading.Event) -> None:
    while not ended.wait(BEAT_SECONDS):
        claim.beat += 1
        with _logged(ownership.uri):
            if place.write(claim):
                continue
            found = place.read()
            ownership.lost_to = str(found or "another process")
            log.error("%s works in %s now: this process was silent for too long", ownership.lost_to, ownership.uri)
            return


@contextlib.contextmanager
def _logged(uri: str) -> Iterator[None]:
    """A beat that cannot be written is no reason to end: the next one may be."""
    try:
        yield
    except OSError as error:
        log.warning("no sign of life could be left in %s: %s", uri, error)
