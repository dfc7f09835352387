"""A small Kubeflow Pipelines server on loopback, with the proxies that stand before real ones."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import kfp_server_api as kfp

from tests.kfp_api.store import RefusedError, Store, parse

SESSION = "authservice_session=abc123"
USER, PASSWORD = "user@example.com", "right"
_API = "/apis/v2beta1/"


@dataclass
class KfpServer:
    """The server, what it wants of those who ask, and what goes wrong."""

    url: str
    store: Store = field(default_factory=Store)
    token: str | None = None
    """Refuses other tokens with 401."""
    forbidden: bool = False
    """Refuses everybody with 403."""
    login: bool = False
    """A proxy leads everybody without a session to Dex."""
    is_other: bool = False
    """It is no Kubeflow Pipelines server of today."""
    version: str | None = None
    """As the UI's proxy adds it to healthz."""
    failures: int = 0
    """How many requests to the API answer 500 before one is served."""
    fail_on: Callable[[str, str], bool] = lambda method, path: True
    """Which requests these are."""
    requests: list[tuple[str, str]] = field(default_factory=list)


@contextmanager
def kfp_server(certificate: Path | None = None, **options: Any) -> Iterator[KfpServer]:
    """A server that runs for the time of the block; `certificate` holds key and certificate for TLS."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        http.socket = context.wrap_socket(http.socket, server_side=True)
    scheme = "https" if certificate else "http"
    http.state = KfpServer(f"{scheme}://localhost:{http.server_port}", **options)  # type: ignore[attr-defined]
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield http.state  # type: ignore[attr-defined]
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._serve("GET")

    def do_POST(self) -> None:
        self._serve("POST")

    def do_DELETE(self) -> None:
        self._serve("DELETE")

    def log_message(self, *_: Any) -> None:
        pass

    @property
    def state(self) -> KfpServer:
        return self.server.state  # type: ignore[attr-defined, no-any-return]

    def _serve(self, method: str) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body, path = self.rfile.read(length), urlsplit(self.path).path
        self.state.requests.append((method, path))
        if not path.startswith(_API):
            self._browse(path, body)
        elif self.state.login and SESSION not in (self.headers.get("Cookie") or ""):
            self._redirect("/dex/auth?client_id=proxy")
        elif self.state.token and self.headers.get("authorization") != f"Bearer {self.state.token}":
            self._answer(401, {"error": "Unauthorized", "code": 16})
        elif self.state.forbidden:
            self._answer(403, {"message": "User is not authorized to list pipelines", "code": 7})
        elif self.state.is_other:
            self._answer(404, {"detail": "Not Found"})
        elif self.state.failures and self.state.fail_on(method, path):
            self.state.failures -= 1
            self._answer(500, {"message": "database is restarting", "code": 13})
        else:
            self._call(method, path.removeprefix(_API), body)

    def _call(self, method: str, path: str, body: bytes) -> None:
        query = dict(parse_qsl(urlsplit(self.path).query))
        try:
            answer = _route(self.state, method, path, query, body)
        except RefusedError as error:
            self._answer(error.status, {"message": str(error), "code": 3})
        else:
            self._answer(200, kfp.ApiClient().sanitize_for_serialization(answer))

    def _browse(self, path: str, body: bytes) -> None:
        """What a browser sees of the proxy and of Dex."""
        if path == "/" and self.state.login and SESSION not in (self.headers.get("Cookie") or ""):
            self._redirect("/dex/auth?client_id=proxy")
        elif path == "/dex/auth/local":
            self._redirect("/dex/auth/local/login?state=s")
        elif path == "/dex/auth/local/login" and self.command == "POST":
            form = {key: values[0] for key, values in parse_qs(body.decode()).items()}
            right = form == {"login": USER, "password": PASSWORD}
            self._redirect("/callback", SESSION) if right else self._redirect("/dex/auth/local/login?state=s")
        elif path == "/callback":
            self._redirect("/")
        else:
            self._send(200, b"<html>Log in</html>", "text/html")

    def _answer(self, status: int, content: Any) -> None:
        self._send(status, json.dumps(content).encode(), "application/json")

    def _redirect(self, where: str, cookie: str | None = None) -> None:
        self._send(302, b"", "text/html", {"Location": where} | ({"Set-Cookie": f"{cookie}; Path=/"} if cookie else {}))

    def _send(self, status: int, content: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


def _route(state: KfpServer, method: str, path: str, query: dict[str, str], body: bytes) -> Any:
    store, parts = state.store, path.split("/")
    if path == "healthz":
        health = kfp.ApiClient().sanitize_for_serialization(
            kfp.V2beta1GetHealthzResponse(multi_user=store.multi_user, pipeline_store="database")
        )
        return health | ({"apiServerTagName": state.version} if state.version else {})
    if path == "pipelines/upload_version":
        return store.upload_version(_uploaded(body), query["name"], query["pipelineid"], query.get("description", ""))
    if method == "POST" and path in _CREATE:
        model, create = _CREATE[path]
        return create(store, parse(model, json.loads(body)))
    if method == "POST" and parts[0] == "recurringruns":
        identity, _, verb = parts[1].partition(":")
        return store.set_mode(identity, {"enable": "ENABLE", "disable": "DISABLE"}[verb])
    if method == "DELETE" and parts[0] == "recurringruns":
        return store.delete_recurring_run(parts[1])
    if method == "POST" and parts[0] == "runs" and parts[-1].endswith(":terminate"):
        return store.terminate_run(parts[1].removesuffix(":terminate"))
    if method == "GET" and parts[0] == "runs" and len(parts) == 2:
        return store.get_run(parts[1])
    if method == "GET" and parts[0] == "pipelines" and len(parts) == 3:
        versions = [version for version in store.versions if version.pipeline_id == parts[1]]
        return store.listing(versions, query, kfp.V2beta1ListPipelineVersionsResponse, "pipeline_versions")
    if method == "GET" and path in _LISTS:
        attribute, make = _LISTS[path]
        entries = getattr(store, attribute)
        if store.multi_user and not query.get("namespace"):
            raise RefusedError(400, "a namespace is needed in multi-user mode")
        return store.listing(entries, query, make, attribute)
    raise RefusedError(404, f"{method} {path}: Not Found")


_CREATE = {
    "pipelines": (kfp.V2beta1Pipeline, Store.create_pipeline),
    "experiments": (kfp.V2beta1Experiment, Store.create_experiment),
    "runs": (kfp.V2beta1Run, Store.create_run),
    "recurringruns": (kfp.V2beta1RecurringRun, Store.create_recurring_run),
}
_LISTS = {
    "pipelines": ("pipelines", kfp.V2beta1ListPipelinesResponse),
    "experiments": ("experiments", kfp.V2beta1ListExperimentsResponse),
    "runs": ("runs", kfp.V2beta1ListRunsResponse),
    "recurringruns": ("recurring_runs", kfp.V2beta1ListRecurringRunsResponse),
}


def _uploaded(body: bytes) -> bytes:
    """The file in a multipart form of one."""
    head, _, rest = body.partition(b"\r\n\r\n")
    if b'name="uploadfile"' not in head:
        raise RefusedError(400, "no uploadfile")
    return rest.rpartition(b"\r\n--" + head.split(b"\r\n")[0].removeprefix(b"--"))[0]
