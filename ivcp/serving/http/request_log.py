"""What is written down of each request: its id, a line of the log, the metrics.

Nothing of a request's content is: no file, no file name, no prompt, no key, no URI.
"""

from __future__ import annotations

import json
import logging
import re
import time
import uuid
from collections.abc import Iterable
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ivcp.serving.http.metrics import PredictorMetrics
from ivcp.serving.http.problems import CLIENT_GONE, SPEAKS_OPENAI, STATUS_OF_CODE
from ivcp.serving.http.timings import Timings, timed_request

log = logging.getLogger(__name__)

REQUEST_ID_HEADER = b"x-request-id"
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_UNLOGGED = frozenset({"/healthz", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"})
"""Probes, which would fill the log."""


class RequestLog:
    """The outermost layer of the application."""

    def __init__(
        self, app: ASGIApp, *, metrics: PredictorMetrics, paths: Iterable[str], speaks_openai: bool = False
    ) -> None:
        """`paths` are those of the routes, with `{name}` for their parameters.

        `speaks_openai` gives errors the shape that clients of OpenAI's API read.
        """
        self.app, self._metrics, self._speaks_openai = app, metrics, speaks_openai
        self._patterns = [(re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path))), path) for path in sorted(paths)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers, and writes down how."""
        if scope["type"] != "http" or scope["path"] in _UNLOGGED:
            await self.app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {}).update({"request_id": request_id, SPEAKS_OPENAI: self._speaks_openai})
        timings, started, status = Timings(), time.monotonic(), 500  # 500 of what nobody answers

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = [(REQUEST_ID_HEADER, request_id.encode()), *_server_timing(timings)]
                message["headers"] = [*message.get("headers", ()), *own]
            await send(message)

        with self._metrics.in_progress.track_inprogress(), timed_request(timings):
            try:
                await self.app(scope, receive, noted)
            finally:
                if timings.code == CLIENT_GONE:
                    status = STATUS_OF_CODE[CLIENT_GONE]
                self._write_down(scope, request_id, status, time.monotonic() - started, timings)

    def _write_down(self, scope: Scope, request_id: str, status: int, seconds: float, timings: Timings) -> None:
        route = self._route(scope)
        self._metrics.count(route=route, status=status, seconds=seconds, timings=timings)
        said: dict[str, Any] = {
            "request_id": request_id,
            "method": scope["method"],
            "route": route,
            "status": status,
            "code": timings.code,
            "seconds": round(seconds, 4),
            **{f"{part}_seconds": round(took, 4) for part, took in timings.seconds.items()},
            "batch": max(timings.batch_sizes, default=None),
            "model": timings.model,
            "key": timings.key,
        }
        log.info("request", extra={"fields": {name: value for name, value in said.items() if value is not None}})

    def _route(self, scope: Scope) -> str:
        """The path as the routes have it, also of what is refused before: one name for all models."""
        found = (path for pattern, path in self._patterns if pattern.fullmatch(scope["path"]))
        return next(found, "other")


class JsonLines(logging.Formatter):
    """A line of JSON for each record, as log collectors read them."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class PlainLines(logging.Formatter):
    """The same for people."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and a traceback where there is one."""
        fields = " ".join(f"{name}={value}" for name, value in getattr(record, "fields", {}).items())
        return f"{super().format(record)} {fields}".rstrip()


def _server_timing(timings: Timings) -> list[tuple[bytes, bytes]]:
    """The milliseconds of each part, as browsers show them (W3C Server Timing)."""
    parts = ", ".join(f"{part};dur={1000 * seconds:.1f}" for part, seconds in timings.seconds.items())
    return [(b"server-timing", parts.encode())] if parts else []


def _request_id(scope: Scope) -> str:
    """The client's own, where it has a plain one; else a new one."""
    for name, value in scope["headers"]:
        if name == REQUEST_ID_HEADER and _REQUEST_ID.fullmatch(value):
            return str(value.decode())
    return uuid.uuid4().hex
