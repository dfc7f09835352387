"""A mirror of the Hugging Face hub on loopback, as far as its libraries ask: revisions, lists of files, files.

Seen in what huggingface_hub and transformers send: HEAD and GET of `/<id>/resolve/<revision>/<file>` (the answer names
the commit, an ETag and, on errors, a code), `/api/models/<id>/revision/<revision>` and `/api/models/<id>/tree/…`.
"""

from __future__ import annotations

import hashlib
import json
import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_RESOLVE = re.compile(r"/(?P<id>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")
_API = re.compile(r"/api/models/(?P<id>[^/]+/[^/]+)/(?P<what>revision|tree)/(?P<revision>[^/]+)(?P<below>/.*)?")


@dataclass
class Mirror:
    """Where the mirror is, and what it was asked for."""

    url: str
    asked: list[str] = field(default_factory=list)


@contextmanager
def mirror(models: dict[str, Path], *, context: ssl.SSLContext | None = None) -> Iterator[Mirror]:
    """Serves folders as the models of these ids, at their branch main; with `context` over TLS."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *words: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, *, with_body: bool) -> None:
            path = self.path.partition("?")[0]
            found.asked.append(f"{self.command} {path}")
            status, headers, body = answer_of(models, path)
            self.send_response(status)
            for name, value in (headers | {"content-length": str(len(body))}).items():
                self.send_header(name, value)
            self.end_headers()
            if with_body:
                self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        found = Mirror(f"{'https' if context else 'http'}://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield found
        server.shutdown()


def answer_of(models: dict[str, Path], path: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of a request."""
    asked = _RESOLVE.fullmatch(path) or _API.fullmatch(path)
    if asked is None or asked["id"] not in models:
        return 404, {"x-error-code": "RepoNotFound"}, b""
    if asked["revision"] not in ("main", COMMIT):
        return 404, {"x-error-code": "RevisionNotFound", "x-repo-commit": COMMIT}, b""
    folder = models[asked["id"]]
    if asked.re is _API:
        return _described(folder, asked)
    file = folder / asked["file"]
    if not file.is_file():
        return 404, {"x-error-code": "EntryNotFound", "x-repo-commit": COMMIT}, b""
    content = file.read_bytes()
    return 200, {"x-repo-commit": COMMIT, "etag": f'"{hashlib.sha256(content).hexdigest()}"'}, content


def _described(folder: Path, asked: re.Match[str]) -> tuple[int, dict[str, str], bytes]:
    files = sorted(path for path in folder.iterdir() if path.is_file())
    described: Any = {"id": asked["id"], "sha": COMMIT, "siblings": [{"rfilename": path.name} for path in files]}
    if asked["what"] == "tree":
        if asked["below"]:
            return 404, {"x-error-code": "EntryNotFound"}, b""
        described = [{"type": "file", "path": path.name, "size": path.stat().st_size, "oid": COMMIT} for path in files]
    return 200, {"content-type": "application/json"}, json.dumps(described).encode()
