"""Which requests are let in, how much they may send and how long they may take.

All of this is decided before or while a body arrives: a request that is refused costs nothing but its headers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ivcp.serving.http.problems import CLIENT_GONE, SPEAKS_OPENAI, ProblemError
from ivcp.serving.http.timings import Timings, current_timings
from ivcp.serving.settings import ServerSettings

DEADLINE_HEADER = b"x-deadline-seconds"
_MOST_RETRY_SECONDS = 60.0


class Load:
    """How much is under way: requests, and bytes of their bodies."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.requests, self.bytes = 0, 0
        self._seconds_per_request = 1.0
        self.is_draining = False

    @contextmanager
    def admitted(self, announced_bytes: int) -> Iterator[None]:
        """Inside, the request is one of those under way.

        Raises:
            ProblemError: the server is ending ("draining"), or there is no room ("overloaded").
        """
        if self.is_draining:
            raise ProblemError(
                "draining", "this predictor is ending: ask again, another one answers", headers={"Connection": "close"}
            )
        if self.requests >= self.settings.max_requests:
            raise ProblemError(
                "overloaded",
                f"{self.requests} requests are under way, which is the most (max_requests): send it again later",
                retry_after=self._retry_seconds(),
            )
        if self.bytes + announced_bytes > self.settings.max_uploads_mb * 1e6:
            raise self.too_many_bytes()
        self.requests += 1
        started = time.monotonic()
        try:
            yield
        finally:
            self.requests -= 1
            self._seconds_per_request += 0.1 * (time.monotonic() - started - self._seconds_per_request)

    @contextmanager
    def counting(self) -> Iterator[Callable[[int], None]]:
        """Inside, the bytes that the function is told of are under way too; it raises a ProblemError for too many."""
        counted = 0

        def more(num_bytes: int) -> None:
            nonlocal counted
            counted += num_bytes
            self.bytes += num_bytes
            if self.bytes > self.settings.max_uploads_mb * 1e6:
                raise self.too_many_bytes()

        try:
            yield more
        finally:
            self.bytes -= counted

    def too_many_bytes(self) -> ProblemError:
        """Uploads together are larger than the limit."""
        return ProblemError(
            "overloaded",
            f"uploads of more than {self.settings.max_uploads_mb:g} MB are under way: send it again later",
            retry_after=self._retry_seconds(),
        )

    def _retry_seconds(self) -> float:
        """When about half of what is under way has been answered."""
        return min(_MOST_RETRY_SECONDS, max(1.0, self._seconds_per_request / 2))


class Admission:
    """Lets requests for predictions in, counts their bytes, and ends those that take too long or whose client left."""

    def __init__(self, app: ASGIApp, *, load: Load) -> None:
        self.app, self._load, self._settings = app, load, load.settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes everything on but what it refuses."""
        if scope["type"] != "http" or scope["method"] not in ("POST", "PUT", "PATCH"):
            await self.app(scope, receive, send)
            return
        body = _Body(receive, scope, self._load)
        response = _Response(send)
        try:
            timings = self._begin(scope)
            body.check_announced()
            with self._load.admitted(body.announced), body:
                await self._within_time(scope, body, response, timings)
        except ProblemError as problem:
            current_timings().code = problem.code
            if response.is_started:
                raise
            await problem.response(scope)(scope, receive, send)

    def _begin(self, scope: Scope) -> Timings:
        timings = current_timings()
        seconds = self._settings.request_timeout_seconds
        for name, value in scope["headers"]:
            if name == DEADLINE_HEADER:
                seconds = min(seconds, _seconds(value))
        timings.deadline = time.monotonic() + seconds
        return timings

    async def _within_time(self, scope: Scope, body: _Body, response: _Response, timings: Timings) -> None:
        """Runs the request until it is answered, its client has left, or its time is over."""
        is_late, failure = False, None
        async with anyio.create_task_group() as tasks:

            async def end_when_client_leaves() -> None:
                await body.wait_until_client_left()
                tasks.cancel_scope.cancel()

            async def end_when_late() -> None:
                nonlocal is_late
                await anyio.sleep(timings.left_seconds() or 0.0)
                is_late = True
                tasks.cancel_scope.cancel()

            tasks.start_soon(end_when_client_leaves)
            tasks.start_soon(end_when_late)
            try:
                await self.app(scope, body.receive, response.send)
            except Exception as error:  # noqa: BLE001 - raised again below: a task group would wrap it
                failure = error
            tasks.cancel_scope.cancel()
        if body.client_left and not response.is_complete:  # whatever the application made of it
            timings.code = CLIENT_GONE
            return
        if failure is not None:
            raise failure
        if is_late and not response.is_complete:
            raise ProblemError(
                "deadline_exceeded",
                "it was not answered in time (X-Deadline-Seconds, request_timeout_seconds): send less, or wait longer",
            )


class _Response:
    """What was sent so far."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.is_started, self.is_complete = False, False

    async def send(self, message: Message) -> None:
        self.is_started = True
        await self._send(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self.is_complete = True


_INSTEAD_OF_JSON = {
    False: "send the video to /v1/predict as multipart/form-data",
    True: "send a smaller video, or the address of one that this server may read (uri_hosts, uri_buckets)",
}
"""By whether errors have the shape of OpenAI's API, whose routes take no forms."""


class _Body:
    """The body of a request as it arrives: counted, within its time, and watched to its client's end."""

    def __init__(self, receive: Receive, scope: Scope, load: Load) -> None:
        self._receive, self._load, self._settings = receive, load, load.settings
        headers = dict(scope["headers"])
        announced = headers.get(b"content-length", b"")
        self.announced = int(announced) if announced.isdigit() else 0
        is_openai = bool(scope.get("state", {}).get(SPEAKS_OPENAI))
        is_form = headers.get(b"content-type", b"").partition(b";")[0].strip().lower() == b"multipart/form-data"
        self._most = (self._settings.max_upload_mb if is_form else self._settings.max_json_mb) * 1e6
        self._kind = (
            "an upload (max_upload_mb): send fewer seconds of it, or a smaller picture"
            if is_form
            else f"a request that is no form (max_json_mb): {_INSTEAD_OF_JSON[is_openai]}"
        )
        self._arrived, self._counted = 0, 0
        self._is_whole, self._client_left = anyio.Event(), anyio.Event()
        self._until = time.monotonic() + self._settings.upload_timeout_seconds

    def check_announced(self) -> None:
        """Raises:
        ProblemError: what the request announces is too large, whatever else is under way.
        """
        self._check(self.announced)

    def __enter__(self) -> None:
        self._reserve(self.announced)

    def __exit__(self, *_: object) -> None:
        self._load.bytes -= self._counted

    async def receive(self) -> Message:
        """The next part of the body; behind it, waits until the client leaves."""
        if self._is_whole.is_set():
            message = await self._receive()
        else:
            with anyio.move_on_after(max(0.0, self._until - time.monotonic())) as limit:
                message = await self._receive()
            if limit.cancelled_caught:
                raise ProblemError(
                    "upload_timeout",
                    f"the request did not arrive within {self._settings.upload_timeout_seconds:g} s "
                    "(upload_timeout_seconds): send a smaller file, or from a faster network",
                    headers={"Connection": "close"},
                )
        if message["type"] == "http.disconnect":
            self._client_left.set()
            return message
        self._arrived += len(message.get("body", b""))
        self._check(self._arrived)
        self._reserve(self._arrived)
        if not message.get("more_body", False):
            self._is_whole.set()
        return message

    @property
    def client_left(self) -> bool:
        """Whether the connection has ended."""
        return self._client_left.is_set()

    async def wait_until_client_left(self) -> None:
        """Waits until the connection ends, also where nobody reads from it any more."""
        async with anyio.create_task_group() as tasks:

            async def look_behind_the_body() -> None:
                await self._is_whole.wait()
                while not self._client_left.is_set():
                    await self.receive()

            tasks.start_soon(look_behind_the_body)
            await self._client_left.wait()
            tasks.cancel_scope.cancel()

    def _check(self, num_bytes: int) -> None:
        if num_bytes > self._most:
            raise ProblemError(
                "body_too_large",
                f"the upload is larger than {self._most / 1e6:g} MB, the most of {self._kind}",
                headers={"Connection": "close"},
            )

    def _reserve(self, num_bytes: int) -> None:
        """Counts up to `num_bytes` of this request."""
        more = num_bytes - self._counted
        if more <= 0:
            return
        self._load.bytes += more
        self._counted += more
        if self._load.bytes > self._settings.max_uploads_mb * 1e6:
            raise self._load.too_many_bytes()


def _seconds(value: bytes) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise ProblemError("bad_request", "X-Deadline-Seconds must be a number of seconds above 0, such as 30")
    return seconds
