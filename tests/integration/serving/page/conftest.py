from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserType

from ivcp.records.calibration import CALIBRATION_FILE
from tests.calibrations import CALIBRATION
from tests.integration.serving.page.browser import CAMERA_ALLOWED, FAKE_CAMERA, Visit, found_chromium, launched, visit
from tests.integration.serving.predictor_process import RunningPredictor, running
from tests.models import save_tiny_classifier
from tests.videos import write_footage, write_video

KEY = "a-key-of-32-characters-or-so-1234"
UNSURE_BELOW = 0.45


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sure of some windows of the long video, and unsure of others."""
    directory = save_tiny_classifier(tmp_path_factory.mktemp("page-model") / "tiny")
    calibration = CALIBRATION.model_copy(update={"temperature": 0.5, "unsure_below": UNSURE_BELOW})
    calibration.write(directory / CALIBRATION_FILE)
    return directory


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip, a long video, a text, and what is too large for the predictor that asks for keys."""
    folder = tmp_path_factory.mktemp("page-videos")
    write_video(folder / "a 'clip'.mp4", num_frames=24)
    write_footage(folder / "long.mp4", num_frames=1000)
    (folder / "notes.txt").write_text("no video\n")
    (folder / "large.mp4").write_bytes(bytes(1_500_000))
    return folder


@pytest.fixture(scope="module")
def chromium() -> Iterator[BrowserType]:
    with found_chromium() as found:
        yield found


@pytest.fixture(scope="module")
def browser(chromium: BrowserType) -> Iterator[Browser]:
    """With a camera that shows a moving picture, and may be used."""
    with launched(chromium, FAKE_CAMERA, CAMERA_ALLOWED) as started:
        yield started


@pytest.fixture(scope="module")
def predictor(
    browser: Browser, model_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningPredictor]:
    with running(model_dir, tmp_path_factory.mktemp("page-log") / "predictor.log") as started:
        yield started


@pytest.fixture
def open_page(browser: Browser, predictor: RunningPredictor) -> Iterator[Callable[..., Visit]]:
    """Opens the page when the model is ready; options are those of a browser context."""
    visits: list[Visit] = []

    def opened(**options: object) -> Visit:
        visits.append(visit(browser, predictor.url, **options))
        visits[-1].page.locator("#columns").wait_for()
        return visits[-1]

    yield opened
    for each in visits:
        each.page.context.close()


@pytest.fixture(scope="module")
def other_server(videos: Path) -> Iterator[str]:
    """A web server with the videos; its port's number comes last."""
    handler = functools.partial(_Files, directory=str(videos))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class _Files(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def locked_predictor(
    browser: Browser, model_dir: Path, other_server: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningPredictor]:
    """One that asks for a key, reads from the other server, and takes a megabyte."""
    folder = tmp_path_factory.mktemp("page-locked")
    (folder / "key").write_text(KEY)
    settings = {
        "keys": folder / "key",
        "max_upload_mb": 1,
        "uri_hosts": "127.0.0.1",
        "uri_networks": "127.0.0.0/8",
        "uri_schemes": "http",
        "uri_ports": other_server.rpartition(":")[2],
    }
    with running(model_dir, folder / "predictor.log", settings=settings) as started:
        yield started
