"""Chromium without a window, and what it did: its messages and its requests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserType, Page, sync_playwright

FAKE_CAMERA, CAMERA_ALLOWED = "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"
PATIENCE_MS = 120_000


@dataclass
class Visit:
    """A page in a context of its own, and what it asked for and complained of."""

    page: Page
    url: str
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def choose(self, video: Path, length: str = "") -> None:
        """Chooses a file; `length` is waited for, as the page shows it."""
        self.page.set_input_files("#file", video)
        self.page.locator("#name", has_text=f"{video.name} ·").wait_for()
        if length:
            self.page.locator("#name", has_text=length).wait_for()

    def classify(self, done: str) -> None:
        """Presses Enter, which the focus is on, and waits for `done`, a selector."""
        self.page.keyboard.press("Enter")
        self.page.locator(done).first.wait_for()

    def texts(self, selector: str) -> list[str]:
        """Of all elements."""
        return self.page.locator(selector).all_inner_texts()

    def check_accessible(self) -> None:
        """Asserts that axe-core finds nothing serious or critical."""
        found = Axe().run(self.page).response["violations"]
        assert [each for each in found if each["impact"] in ("serious", "critical")] == []

    def check_width(self) -> None:
        """Asserts that nothing is wider than the screen."""
        assert self.page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    def check_quiet(self, *, refused: bool = False) -> None:
        """Asserts that it asked nobody but its server, and complained of nothing but answers that were `refused`."""
        assert [each for each in self.requests if not each.startswith((self.url, f"blob:{self.url}", "data:"))] == []
        complaints = [each for each in self.complaints if not (refused and each.startswith("Failed to load resource"))]
        assert complaints == []


@contextmanager
def found_chromium() -> Iterator[BrowserType]:
    """To launch; tests are skipped where there is none."""
    if chromium_path() is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    with sync_playwright() as playwright:
        yield playwright.chromium


@contextmanager
def launched(chromium: BrowserType, *flags: str) -> Iterator[Browser]:
    """A running browser: the machine's own, since playwright's would have to be downloaded."""
    browser = chromium.launch(executable_path=chromium_path(), args=list(flags))
    try:
        yield browser
    finally:
        browser.close()


def chromium_path() -> str | None:
    """Where it is on this machine."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def visit(browser: Browser, url: str, **options: Any) -> Visit:
    """Opens the page of the predictor at `url`, of which the browser knows nothing yet."""
    page = browser.new_context(**{"locale": "en-GB"} | options).new_page()
    page.set_default_timeout(PATIENCE_MS)
    visited = Visit(page, url)
    page.on("request", lambda request: visited.requests.append(request.url))
    page.on("console", lambda message: message.type in ("error", "warning") and visited.complaints.append(message.text))
    page.on("pageerror", lambda error: visited.complaints.append(str(error)))
    page.goto(f"{url}/", timeout=PATIENCE_MS)
    return visited
