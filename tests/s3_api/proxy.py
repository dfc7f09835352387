"""An HTTP proxy before a server that loses connections, answers late, is busy, or does not know the caller any more."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

BUSY = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"

DENIED = b"<html><body>Your session has expired: log in.</body></html>"


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    number: int
    """Of all requests, from 0."""


@dataclass
class Faults:
    """What the proxy does to a request; each may be changed at any time."""

    is_busy: Callable[[Request], bool] = lambda request: False
    is_denied: Callable[[Request], bool] = lambda request: False
    cuts_answer: Callable[[Request], bool] = lambda request: False
    cuts_upload: Callable[[Request], bool] = lambda request: False
    seconds: Callable[[Request], float] = lambda request: 0.0
    requests: list[Request] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, method: str) -> int:
        return sum(request.method == method for request in self.requests)


@contextmanager
def proxy(endpoint: str) -> Iterator[tuple[str, Faults]]:
    """Yields the proxy's URL and its faults."""
    faults = Faults()
    target = urlsplit(endpoint)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_request(self) -> None:
            with suppress(ConnectionError):  # a client that gave up
                super().handle_one_request()

        def log_message(self, *words: Any) -> None:
            pass

        def _forward(self) -> None:
            with faults.lock:
                request = Request(self.command, self.path, len(faults.requests))
                faults.requests.append(request)
            length = int(self.headers.get("Content-Length") or 0)
            if faults.cuts_upload(request):
                self.rfile.read(length // 2)
                self._hang_up()
                return
            body = self.rfile.read(length)
            time.sleep(faults.seconds(request))
            if faults.is_busy(request):
                self._answer(503, {}, BUSY)
                return
            if faults.is_denied(request):
                self._answer(401, {"Content-Type": "text/html"}, DENIED)
                return
            connection = http.client.HTTPConnection(target.hostname or "", target.port, timeout=60)
            try:
                connection.request(self.command, self.path, body, dict(self.headers))
                answer = connection.getresponse()
                content = answer.read()
            finally:
                connection.close()
            self._answer(answer.status, dict(answer.getheaders()), content, cut=faults.cuts_answer(request))

        def _answer(self, status: int, headers: dict[str, str], content: bytes, *, cut: bool = False) -> None:
            self.send_response_only(status)
            length = headers.get("Content-Length", str(len(content)))
            for name, value in headers.items():
                if name not in ("Content-Length", "Transfer-Encoding", "Connection"):
                    self.send_header(name, value)
            self.send_header("Content-Length", length)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content[: len(content) // 2] if cut else content)
            if cut:
                self._hang_up()

        def _hang_up(self) -> None:
            self.close_connection = True

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _forward  # noqa: N815

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", faults
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
