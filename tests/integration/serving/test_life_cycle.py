"""The real process: probes on a port of their own, clients that send nothing, SIGTERM, traces."""

import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.models import save_tiny_classifier
from tests.ports import free_port
from tests.videos import write_video

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_classifier(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_video(tmp_path_factory.mktemp("videos") / "clip.mp4").read_bytes()


@contextmanager
def running(model_dir: Path, folder: Path, *flags: str, probes: int | None = None, **variables: str) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "ivcp.serving.server", "--model-dir", str(model_dir), "--port", str(port)]
    command += ["--num-decoders", "1", *flags, *(["--probe-port", str(probes)] if probes else [])]
    environment = os.environ | variables | {"TMPDIR": str(folder)}
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stderr=log, env=environment) as process:
        try:
            deadline = time.monotonic() + 120
            while not is_ready(probes or port):
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) in (0, -signal.SIGTERM)


def is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def ask(url: str, video: bytes, **headers: str) -> httpx.Response:
    files = {"video": ("a_private_name.mp4", video)}
    return httpx.post(f"{url}/v1/predict", files=files, headers=headers, trust_env=False, timeout=60)


def test_probes_and_metrics_have_a_port_of_their_own(model_dir: Path, video: bytes, tmp_path: Path):
    probes = free_port()
    with running(model_dir, tmp_path, probes=probes) as url:
        assert ask(url, video).status_code == httpx.codes.OK
        metrics = httpx.get(f"http://127.0.0.1:{probes}/metrics", trust_env=False)
        assert 'ivcp_requests_total{code="ok",route="/v1/predict",status="200"} 1.0' in metrics.text
        assert httpx.get(f"{url}/metrics", trust_env=False).status_code == httpx.codes.NOT_FOUND
        assert httpx.get(f"{url}/healthz", trust_env=False).status_code == httpx.codes.OK
        assert ask(f"http://127.0.0.1:{probes}", video).status_code == httpx.codes.NOT_FOUND


def test_a_log_line_says_where_the_time_went_and_nothing_of_the_content(model_dir: Path, video: bytes, tmp_path: Path):
    with running(model_dir, tmp_path, IVCP_LOG_FORMAT="json") as url:
        reply = ask(url, video, **{"X-Request-Id": "mine-7"})
        assert reply.headers["X-Request-Id"] == "mine-7"
        assert "decode;dur=" in reply.headers["Server-Timing"]
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines() if line.startswith("{")]
    (line,) = [line for line in lines if line.get("request_id") == "mine-7"]
    assert (line["route"], line["status"], line["batch"]) == ("/v1/predict", 200, 1)
    assert 0 < line["decode_seconds"] + line["model_seconds"] < line["seconds"]
    assert "a_private_name" not in (tmp_path / "log").read_text()


def test_a_head_that_does_not_come_ends_the_connection(model_dir: Path, video: bytes, tmp_path: Path):
    script = "import ivcp.serving.http.slow_clients as slow, ivcp.serving.server as server; "
    script += "slow.HEAD_SECONDS = 1; server.main()"
    port = free_port()
    command = [sys.executable, "-c", script, "--model-dir", str(model_dir), "--port", str(port), "--num-decoders", "1"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ | {"TMPDIR": str(tmp_path)}) as process:
        try:
            deadline = time.monotonic() + 120
            while not is_ready(port):
                assert time.monotonic() < deadline
                time.sleep(0.1)
            silent = socket.create_connection(("127.0.0.1", port), timeout=30)
            begun = socket.create_connection(("127.0.0.1", port), timeout=30)
            begun.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: ")
            for connection in (silent, begun):
                with connection:
                    assert connection.recv(100) == b""
            with httpx.Client(trust_env=False, timeout=60) as client:  # one that takes its time between requests
                for _ in range(2):
                    assert client.post(f"http://127.0.0.1:{port}/v1/predict", files={"video": video}).is_success
                    time.sleep(1.5)
        finally:
            process.terminate()


def test_sigterm_answers_what_was_accepted_and_turns_others_away(model_dir: Path, tmp_path: Path):
    long = write_video(tmp_path / "long.mp4", num_frames=1500, size=256).read_bytes()
    replies: list[httpx.Response] = []
    with running(model_dir, tmp_path) as url:
        asking = threading.Thread(target=lambda: replies.append(ask(url, long)))
        asking.start()
        metrics = f"{url}/metrics"
        deadline = time.monotonic() + 60
        while "ivcp_requests_in_progress 1.0" not in httpx.get(metrics, trust_env=False).text:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        (server,) = [int(pid) for pid in _children() if str(model_dir) in _command(int(pid))]
        os.kill(server, signal.SIGTERM)
        time.sleep(0.3)
        assert httpx.get(f"{url}/readyz", trust_env=False).json() == {"status": "draining"}
        refused = ask(url, b"")
        assert (refused.status_code, refused.json()["code"]) == (503, "draining")
        asking.join()
    assert [reply.status_code for reply in replies] == [200]
    assert not list(tmp_path.glob("ivcp-uploads-*/*"))


class Collector(http.server.BaseHTTPRequestHandler):
    """Takes spans over OTLP."""

    spans: ClassVar[list[Any]] = []

    def do_POST(self) -> None:
        """One export."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        found = ExportTraceServiceRequest.FromString(body)
        Collector.spans += [s for one in found.resource_spans for scope in one.scope_spans for s in scope.spans]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def test_traces_go_to_a_collector_and_continue_the_callers(model_dir: Path, video: bytes, tmp_path: Path):
    Collector.spans = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{collector.server_address[1]}"
        trace = "0af7651916cd43dd8448eb211c80319c"
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": address, "OTEL_EXPORTER_OTLP_COMPRESSION": "none"}
        with running(model_dir, tmp_path, **variables) as url:
            assert ask(url, video, traceparent=f"00-{trace}-b7ad6b7169203331-01").is_success
        collector.shutdown()
    mine = {span.name: span for span in Collector.spans if span.trace_id.hex() == trace}
    assert {"POST /v1/predict", "receive", "decode"} <= set(mine), sorted(mine)
    by_id = {span.span_id: span for span in mine.values()}
    above = by_id[mine["decode"].parent_span_id]
    while above.name != "POST /v1/predict":
        above = by_id[above.parent_span_id]
    assert above.parent_span_id.hex() == "b7ad6b7169203331"


def _children() -> list[str]:
    return [pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]


def _command(process: int) -> str:
    return Path(f"/proc/{process}/cmdline").read_text().replace("\0", " ")
