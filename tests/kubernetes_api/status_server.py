"""Where a training process of a TrainJob reports how far it is: the status server of Kubeflow Trainer.

As read in Kubeflow Trainer 2.3.0, pkg/statusserver/server.go and docs/user-guides/trainjob-progress.md: HTTPS with the
controller's own certificate, a token whose audience is the job, 403 for another one, 422 for what the job's schema does
not allow, and 200 with what was parsed. The pods get its address and the files of certificate and token in variables
(pkg/runtime/framework/plugins/trainjobstatus).
"""

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

from tests.certificates import write_certificate
from tests.kubernetes_api.errors import ApiError

TOKEN = "of the job"


@dataclass
class StatusServer:
    """The server; `report` takes a `trainerStatus`, as `JobHandle.report` does."""

    report: Callable[[dict[str, Any]], None]
    url: str
    folder: Path
    answers: list[int] = field(default_factory=list)
    hangs: threading.Event = field(default_factory=threading.Event)
    """While it is set, no request is answered."""
    goes_on: threading.Event = field(default_factory=threading.Event)

    @property
    def environment(self) -> dict[str, str]:
        """What Kubeflow Trainer puts into the pods of the job."""
        return {
            "KUBEFLOW_TRAINER_SERVER_URL": self.url,
            "KUBEFLOW_TRAINER_SERVER_CA_CERT": str(self.folder / "ca.crt"),
            "KUBEFLOW_TRAINER_SERVER_TOKEN": str(self.folder / "token"),
        }


@contextmanager
def status_server(folder: Path, report: Callable[[dict[str, Any]], None], *, job: str) -> Iterator[StatusServer]:
    """A server on loopback for the reports of the TrainJob `job`; its files are in `folder`."""
    write_certificate(folder / "ca.crt")
    (folder / "token").write_text(TOKEN + "\n")
    http = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "ca.crt")
    http.socket = context.wrap_socket(http.socket, server_side=True)
    path = f"/apis/trainer.kubeflow.org/v1alpha1/namespaces/ivcp/trainjobs/{job}/status"
    state = StatusServer(report, f"https://localhost:{http.server_port}{path}", folder)
    http.state, http.path = state, path  # type: ignore[attr-defined]
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        state.goes_on.set()
        http.shutdown()
        http.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        state: StatusServer = self.server.state  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if state.hangs.is_set():
            state.goes_on.wait(30)
        code, answer = self._answer(state, body)
        state.answers.append(code)
        content = json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _answer(self, state: StatusServer, body: bytes) -> tuple[int, Any]:
        if self.path != self.server.path:  # type: ignore[attr-defined]
            return 404, _failure("Not found", "NotFound", 404)
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return 403, _failure("Forbidden", "Forbidden", 403)
        try:
            request = json.loads(body)
            state.report(request["trainerStatus"])
        except ValueError:
            return 422, _failure("Invalid payload", "Invalid", 422)
        except ApiError as error:
            return 422, _failure(error.message, "Invalid", 422)
        return 200, request

    def log_message(self, *_: Any) -> None:
        pass


def _failure(message: str, reason: str, code: int) -> dict[str, Any]:
    return {"metadata": {}, "status": "Failure", "message": message, "reason": reason, "code": code}
