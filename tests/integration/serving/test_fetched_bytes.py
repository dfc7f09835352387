"""What requests fetch counts among the uploads while it comes, and not only when it is there."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.integration.serving.documented import code_of
from tests.integration.serving.predictor_process import RunningPredictor, running
from tests.integration.serving.remote_videos.odd_server import OddServer

pytestmark = pytest.mark.slow
VIDEO_BYTES, MOST_BYTES, CLIENTS = 4_000_000, 10_000_000, 8


def slowly() -> Iterator[bytes]:
    """All but the last byte at once."""
    yield f"HTTP/1.1 200 OK\r\nContent-Length: {VIDEO_BYTES}\r\n\r\n".encode() + b"x" * (VIDEO_BYTES - 1)
    time.sleep(4)
    yield b"x"


def bytes_below(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):  # skips what is removed meanwhile
        if "video" in names:
            with suppress(FileNotFoundError):
                total += Path(parent, "video").stat().st_size
    return total


def ask(predictor: RunningPredictor, uri: str) -> httpx.Response:
    with predictor.client() as client:
        return client.post("/v1/predict", json={"uri": uri})


def test_the_disk_is_bounded_while_videos_are_fetched(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads = Path(tempfile.mkdtemp(dir=tmp_path))
    monkeypatch.setenv("TMPDIR", str(uploads))
    with OddServer() as server:
        server.answers["/video"] = slowly
        settings = {
            "uri_hosts": "127.0.0.1",
            "uri_schemes": "http",
            "uri_ports": server.port,
            "uri_networks": "127.0.0.0/8",
            "max_uploads_mb": MOST_BYTES / 1e6,
        }
        uri = f"http://127.0.0.1:{server.port}/video"
        with (
            running(model_dir, tmp_path / "log", settings=settings) as predictor,
            ThreadPoolExecutor(CLIENTS) as clients,
        ):
            asked = [clients.submit(ask, predictor, uri) for _ in range(CLIENTS)]
            most = 0
            while not all(one.done() for one in asked):
                most = max(most, bytes_below(uploads))
                time.sleep(0.05)
            codes = [code_of(one.result()) for one in asked]
            counted = predictor.metrics()["ivcp_uploaded_bytes"]
    assert most <= MOST_BYTES
    assert sorted(set(codes)) == ["overloaded", "video_not_a_video"]
    assert counted == 0
