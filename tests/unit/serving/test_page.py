"""The files of the page, as they are served; `tests/integration/serving/page` uses it in a browser."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

import ivcp
from ivcp.serving.app import create_app
from ivcp.serving.settings import ServerSettings
from tests.conftest import REPOSITORY

FOLDER = Path(ivcp.__file__).parent / "serving" / "page"
FILES = sorted(path.name for path in FOLDER.iterdir())


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    """A server that asks for keys and has loaded nothing."""
    key = tmp_path_factory.mktemp("keys") / "key"
    key.write_text("a-key-of-32-characters-or-so-1234")
    return TestClient(create_app("no-model", settings=ServerSettings(keys=str(key))))


def test_the_page_needs_no_key_and_no_model(client: TestClient):
    page = client.get("/")

    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.text == (FOLDER / "index.html").read_text(encoding="utf-8")
    assert client.get("/v1/model").status_code == 401


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_served(client: TestClient, name: str):
    served = client.get(f"/page/{name}")

    assert served.content == (FOLDER / name).read_bytes()
    kind = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".html": "text/html"}
    assert served.headers["content-type"].startswith(kind[Path(name).suffix])


def test_it_is_counted_as_what_it_is(client: TestClient):
    client.get("/")
    client.get("/page/page.js")
    text = client.get("/metrics").text
    for route in ("/", "/page/{name}"):
        assert f'ivcp_requests_total{{code="ok",route="{route}",status="200"}}' in text


@pytest.mark.parametrize("path", ["/", "/page/page.js"])
def test_nothing_else_may_be_loaded_and_nobody_may_frame_it(client: TestClient, path: str):
    headers = client.get(path).headers

    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert not re.search(r"unsafe|https?:|\*", headers["content-security-policy"])
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "set-cookie" not in headers


def test_a_file_is_sent_again_only_when_it_has_changed(client: TestClient):
    first = client.get("/page/page.js")
    assert first.headers["cache-control"] == "no-cache"

    again = client.get("/page/page.js", headers={"If-None-Match": first.headers["etag"]})

    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    "path", ["/page/nothing.js", "/page/..%2fapp.py", "/page/%2e%2e/app.py", "/page/%2fetc%2fpasswd"]
)
def test_other_files_are_not_served(client: TestClient, path: str):
    refused = client.get(path)

    assert (refused.status_code, refused.json()["code"]) == (404, "not_found")


def test_the_page_names_its_files_without_their_host(client: TestClient):
    """So that it works below a prefix too, as behind `kubectl proxy`."""
    named = re.findall(r'(?:src|href)="([^"]+)"', client.get("/").text)

    assert named
    assert all(re.fullmatch(r"page/[\w.]+", name) for name in named)
    assert {name.removeprefix("page/") for name in named} <= set(FILES)


def test_the_wheel_holds_all_files():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["ivcp"]
    package = FOLDER.parents[1]

    held = {path for pattern in patterns for path in package.glob(pattern)}
    assert {FOLDER / name for name in FILES} <= held
