"""One predictor's address: requests with a deadline, repeated where that is worth it."""

from __future__ import annotations

import itertools
import logging
import math
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx

from ivcp.client.errors import ApiError, error_of, translated
from ivcp.client.waiting import Deadline, pause_seconds

log = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")

KEY_VARIABLE = "IVCP_KEY"
JSON, EVENT_STREAM = "application/json", "text/event-stream"
_CONNECT_SECONDS = 10.0
_MOST_ERROR_BYTES = 65536


class Transport:
    """Connections to one predictor, for any number of threads."""

    def __init__(self, url: str, key: str | None, *, deadline_seconds: float | None, retries: int) -> None:
        """The arguments are those of a client.

        Raises:
            ValueError: the address or the key cannot be one.
        """
        self.url = _checked_url(url)
        self._deadline_seconds, self._retries = deadline_seconds, retries
        key = _checked_key(key if key is not None else os.environ.get(KEY_VARIABLE, ""))
        self._http = httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {key}"} if key else {})

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def repeated(self, attempt: Callable[[Deadline, str], ResultT], deadline_seconds: float | None) -> ResultT:
        """What `attempt` returns, which is called again as long as its error, the retries and the deadline allow it."""
        deadline = Deadline(self._deadline_seconds if deadline_seconds is None else deadline_seconds)
        request_id = uuid.uuid4().hex
        for tries in itertools.count(1):
            try:
                return attempt(deadline, request_id)
            except ApiError as error:
                pause = pause_seconds(tries, error.retry_after_seconds)
                if not error.is_temporary or tries > self._retries or not deadline.leaves(pause):
                    raise
                log.debug("request %s, try %d: %s; again in %.1f s", request_id, tries, error, pause)
                time.sleep(pause)
        raise AssertionError("count() has no end")

    @contextmanager
    def answered(
        self, method: str, path: str, deadline: Deadline, request_id: str, *, accept: str = JSON, **body: Any
    ) -> Iterator[httpx.Response]:
        """The beginning of a good answer; what fails until the block ends is an `ApiError`."""
        with translated(self.url, deadline, request_id):
            deadline.check()
            headers, seconds = {"Accept": accept, "X-Request-Id": request_id}, deadline.remaining_seconds
            connect_seconds = _CONNECT_SECONDS
            if seconds is not None:
                headers["X-Deadline-Seconds"] = f"{seconds:.3f}"
                connect_seconds = min(_CONNECT_SECONDS, seconds)
            timeout = httpx.Timeout(seconds, connect=connect_seconds)
            with self._http.stream(method, path, headers=headers, timeout=timeout, **body) as response:
                if response.status_code != httpx.codes.OK:
                    raise error_of(response, read_body(response, deadline, most_bytes=_MOST_ERROR_BYTES), request_id)
                yield response


def read_body(response: httpx.Response, deadline: Deadline, *, most_bytes: float = math.inf) -> bytes:
    """The body, or so much of it."""
    read = bytearray()
    for chunk in read_chunks(response, deadline):
        read += chunk
        if len(read) >= most_bytes:
            break
    return bytes(read)


def read_chunks(response: httpx.Response, deadline: Deadline) -> Iterator[bytes]:
    """The body as it comes, until the deadline."""
    for chunk in response.iter_bytes():
        deadline.check()
        yield chunk


def _checked_url(text: str) -> str:
    if "@" in text:
        raise ValueError("the predictor's address holds a name or a password: give its key as such")
    try:
        url = httpx.URL(text.strip())
    except httpx.InvalidURL as error:
        raise ValueError(f"the predictor's address {text!r} is none: {error}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError(f"the predictor's address {text!r}: expected one such as https://actions.example.com:8443")
    return str(url).rstrip("/")


def _checked_key(text: str) -> str:
    key = text.strip()  # of a file, with the end of its line
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError("the predictor's key has characters that no key has: expected ASCII without spaces")
    return key
