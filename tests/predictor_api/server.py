"""The server: it answers as the predictor's API is documented, and by a script of what to do instead."""

from __future__ import annotations

import json
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LABELS = ("sit_down", "stand_up", "wave")
MODEL = {"name": "walks", "version": "7", "trained_steps": 1, "data_fingerprint": "data"}
DESCRIPTION = MODEL | {
    "precision": "float32",
    "num_classes": 3,
    "prompt": "What is the person doing?",
    "video": {"num_frames": 4},
    "calibration": {"temperature": 1.3, "unsure_below": 0.5},
    "limits": {"max_upload_mb": 1.0},
    "uris": True,
}


@dataclass
class Asked:
    """One request that arrived."""

    method: str
    path: str
    headers: dict[str, str]
    """By their names in lower case."""
    fields: dict[str, Any]
    file_name: str | None
    content: bytes | None
    """Of the video, where it was sent."""
    num_bytes: int


Step = Callable[["Handler"], None]
"""What to do with a request instead of answering it."""


@dataclass
class PredictorApi:
    """Where the server is, what it was asked, and what it will do next."""

    url: str
    key: str | None = None
    """What requests must carry."""
    asked: list[Asked] = field(default_factory=list)
    script: deque[Step] = field(default_factory=deque)
    """For the next requests, one each."""
    most_at_once: int = 0
    at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    released: threading.Event = field(default_factory=threading.Event)
    """Set at the end: what hangs goes on then."""


def answer_for(content: bytes, **more: Any) -> dict[str, Any]:
    """The class is the first byte's, so that a test can know it."""
    label = content[:1][0] % len(LABELS) if content else 0
    score = {"label": label, "label_name": LABELS[label], "confidence": 0.9}
    return score | {
        "unsure": content[:6] == b"unsure",
        "top": [score],
        "logits": [2.0 if each == label else 0.0 for each in range(len(LABELS))],
        "model": MODEL,
        "frames": 4,
        "frame_seconds": [0.0, 0.5, 1.0, 1.5],
        "backend": "pyav",
        "seconds": 0.01,
        **more,
    }


def refuse(status: int, code: str, *, retry_after: str | None = None, **more: Any) -> Step:
    """Answers with a problem."""

    def step(handler: Handler) -> None:
        handler.read()
        handler.refuse(status, code, **({"Retry-After": retry_after} if retry_after else {}), extra=more)

    return step


def say(status: int, body: bytes, **headers: str) -> Step:
    """Answers as another program would."""

    def step(handler: Handler) -> None:
        handler.read()
        handler.answer(status, body, **headers)

    return step


def break_off(handler: Handler) -> None:
    """Reads the request and closes the connection."""
    handler.read()
    handler.close_connection = True


def break_off_in_answer(handler: Handler) -> None:
    """Announces more bytes than come."""
    handler.read()
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
    handler.close_connection = True


def hang(handler: Handler) -> None:
    """Says nothing until the end of the test."""
    handler.read()
    handler.api.released.wait(60)
    handler.close_connection = True


def trickle(handler: Handler) -> None:
    """Sends a byte of the answer now and then: no single wait is long."""
    handler.read()
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(1000):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        if handler.api.released.wait(0.05):
            break
    handler.close_connection = True


def stream(*events: tuple[str, Any], ends: bool = True) -> Step:
    """Sends events; without `ends` the connection breaks off behind them."""

    def step(handler: Handler) -> None:
        handler.read()
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for name, data in events:
            text = f": still here\r\nevent: {name}\r\ndata: {json.dumps(data, ensure_ascii=False)}\r\n\r\n".encode()
            for piece in (text[:7], text[7:]):  # cut anywhere
                handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                handler.wfile.flush()
        if ends:
            handler.wfile.write(b"0\r\n\r\n")
        else:
            handler.close_connection = True

    return step


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    api: PredictorApi

    def log_message(self, *words: Any) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        self._do()

    def do_POST(self) -> None:
        self._do()

    def _do(self) -> None:
        with self.api.lock:
            step = self.api.script.popleft() if self.api.script else Handler.respond
            self.api.at_once += 1
            self.api.most_at_once = max(self.api.most_at_once, self.api.at_once)
        try:
            step(self)
        except (BrokenPipeError, ConnectionResetError):  # the client went away
            self.close_connection = True
        finally:
            with self.api.lock:
                self.api.at_once -= 1

    def respond(self) -> None:
        """As the API is documented."""
        asked = self.read()
        if self.api.key and asked.headers.get("authorization") != f"Bearer {self.api.key}":
            return self.refuse(401, "key_unknown" if "authorization" in asked.headers else "key_missing")
        if asked.path == "/v1/labels":
            return self.answer_json({"labels": [{"label": i, "label_name": name} for i, name in enumerate(LABELS)]})
        if asked.path in ("/v1/model", "/v1/model?model=walks"):
            return self.answer_json(DESCRIPTION)
        if asked.path != "/v1/predict":
            return self.refuse(404, "not_found")
        if asked.content is None and str(asked.fields["uri"]).startswith("s3://forbidden/"):
            return self.refuse(403, "uri_forbidden")
        content = asked.content if asked.content is not None else str(asked.fields["uri"]).encode()
        if not content:
            return self.refuse(422, "video_empty")
        if content.startswith(b"bad"):
            return self.refuse(422, "video_not_a_video")
        images = {"frame_images": ["data:image/jpeg;base64,AA=="]} if asked.fields.get("with_frames") == "true" else {}
        return self.answer_json(answer_for(content, **images))

    def read(self) -> Asked:
        """The request, which is noted."""
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", 0)))
        fields, file = _form(headers, body) if "content-type" in headers else ({}, None)
        asked = Asked(
            self.command,
            self.path,
            headers,
            fields,
            file.get_filename() if file else None,
            file.get_payload(decode=True) if file else None,
            len(body),
        )
        with self.api.lock:
            self.api.asked.append(asked)
        return asked

    def answer_json(self, content: Any) -> None:
        self.answer(200, json.dumps(content).encode(), **{"Content-Type": "application/json"})

    def refuse(self, status: int, code: str, *, extra: dict[str, Any] | None = None, **headers: str) -> None:
        request_id = self.headers.get("X-Request-Id", "made-here")
        problem = {"type": "about:blank", "title": "T", "status": status, "detail": f"it is {code}", "code": code}
        body = json.dumps(problem | {"request_id": request_id} | (extra or {})).encode()
        self.answer(status, body, **{"Content-Type": "application/problem+json", **headers})

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        self.send_header("X-Request-Id", self.headers.get("X-Request-Id", "made-here"))
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def _form(headers: dict[str, str], body: bytes) -> tuple[dict[str, Any], Message | None]:
    if headers["content-type"] == "application/json":
        return json.loads(body), None
    message = BytesParser().parsebytes(b"Content-Type: %s\r\n\r\n%s" % (headers["content-type"].encode(), body))
    parts = {str(part.get_param("name", header="content-disposition")): part for part in message.get_payload()}
    file = parts.pop("video")
    return {name: part.get_payload(decode=True).decode() for name, part in parts.items()}, file


@contextmanager
def predictor_api(
    *, key: str | None = None, port: int = 0, context: ssl.SSLContext | None = None
) -> Iterator[PredictorApi]:
    """Serves the API on loopback; with `context` over TLS."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, *_: Any) -> None:
            """A client that does not trust us says so by going away."""

    with Server(("127.0.0.1", port), type("Bound", (Handler,), {})) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        api = PredictorApi(f"{'https' if context else 'http'}://127.0.0.1:{server.server_port}", key)
        server.RequestHandlerClass.api = api
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield api
        finally:
            api.released.set()
            server.shutdown()
