"""Keys on every route: the table of routes is walked, so that a new one cannot be forgotten."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from starlette.routing import BaseRoute, Mount

from ivcp.serving.app import create_app
from ivcp.serving.http.access import FREE_PATHS, PAGE_FILES, needed_key
from ivcp.serving.settings import ServerSettings
from tests.models import save_tiny_classifier

INFERENCE, OPERATOR = "an-inference-key-of-32-characters", "an-operators-key-of-32-characters"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for kind, key in (("keys", INFERENCE), ("operator_keys", OPERATOR)):
        (folder / kind).mkdir()
        (folder / kind / "somebody").write_text(f"{key}\n")
    return folder


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_classifier(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def client(model_dir: Path, keys: Path) -> TestClient:
    """A server that has not begun to load: what comes to a handler is answered 503, or what needs no model."""
    settings = ServerSettings(keys=str(keys / "keys"), operator_keys=str(keys / "operator_keys"))
    return TestClient(create_app(model_dir, settings=settings), follow_redirects=False)


def every_route(routes: Iterable[BaseRoute]) -> Iterator[tuple[str, str]]:
    """Method and path of each route, also of those that the OpenAPI document does not show."""
    for route in routes:
        if (router := getattr(route, "original_router", None)) is not None:
            yield from every_route(router.routes)
        elif isinstance(route, Mount):
            yield "GET", f"{route.path}/file"
        else:
            for method in getattr(route, "methods", None) or ("GET",):
                yield method, re.sub(r"{\w+(:\w+)?}", "walks", route.path)  # type: ignore[attr-defined]


def is_free(path: str) -> bool:
    return path in FREE_PATHS or path.startswith(PAGE_FILES)


def ask(client: TestClient, method: str, path: str, **headers: str) -> tuple[int, str | None]:
    reply = client.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    is_problem = reply.headers.get("content-type") == "application/problem+json" and method != "HEAD"
    return reply.status_code, reply.json()["code"] if is_problem else None


def test_the_walk_sees_all_routes(client: TestClient) -> None:
    found = set(every_route(client.app.routes))  # type: ignore[attr-defined]
    documented = {
        (method.upper(), re.sub(r"{\w+}", "walks", path))
        for path, methods in client.app.openapi()["paths"].items()  # type: ignore[attr-defined]
        for method in methods
    }
    assert documented < found
    assert {path for _, path in found} >= {"/openapi.json", "/v2/models/walks/versions/walks/infer", "/classify"}


WRONG: tuple[tuple[dict[str, str], str], ...] = (
    ({}, "key_missing"),
    ({"Authorization": "Bearer nobody-has-this-key-anywhere"}, "key_unknown"),
    ({"X_API_Key": "nobody-has-this-key-anywhere"}, "key_unknown"),
    ({"Authorization": f"Basic {INFERENCE}"}, "key_missing"),
    ({"Authorization": f"Bearer {INFERENCE}x"}, "key_unknown"),
)


def test_every_route_but_the_free_ones_wants_a_key(client: TestClient) -> None:
    for method, path in sorted(set(every_route(client.app.routes))):  # type: ignore[attr-defined]
        for headers, code in WRONG:
            status, found = ask(client, method, path, **headers)
            if is_free(path):
                assert status != 401, (method, path)
            else:
                assert status == 401, (method, path, headers)
                assert found in (code, None), (method, path, headers)


def test_no_method_of_a_route_comes_past_the_keys(client: TestClient) -> None:
    for path in {path for _, path in every_route(client.app.routes) if not is_free(path)}:  # type: ignore[attr-defined]
        for method in METHODS:
            assert ask(client, method, path)[0] == 401, (method, path)


def test_a_key_opens_what_it_is_for(client: TestClient) -> None:
    for method, path in sorted(set(every_route(client.app.routes))):  # type: ignore[attr-defined]
        for header in ({"Authorization": f"Bearer {INFERENCE}"}, {"X_API_Key": INFERENCE}):
            status, code = ask(client, method, path, **header)
            if needed_key(path) == "operator":
                assert (status, code) == (403, "key_not_allowed"), (method, path)
            else:
                assert status not in (401, 403), (method, path)
        assert ask(client, method, path, Authorization=f"Bearer {OPERATOR}")[0] not in (401, 403), (method, path)


def test_operators_routes_without_an_operators_key(model_dir: Path, keys: Path) -> None:
    """A server that lets everybody ask lets nobody change its models; one with inference keys alone neither."""
    for settings, expected in (
        (ServerSettings(), {(403, "key_not_allowed")}),
        (ServerSettings(keys=str(keys / "keys")), {(401, "key_missing")}),
    ):
        client = TestClient(create_app(model_dir, settings=settings))
        body = {"uri": "/somewhere"}
        found = {
            (reply.status_code, reply.json()["code"])
            for reply in (client.put("/v1/models/new", json=body), client.delete("/v1/models/new"))
        }
        assert found == expected
        if settings.keys is not None:
            reply = client.put("/v1/models/new", json=body, headers={"X-API-Key": INFERENCE})
            assert reply.status_code == 403


def test_paths_that_are_free_are_few() -> None:
    """Whoever adds one must mean it."""
    assert {"/", "/healthz", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"} == FREE_PATHS
    for path in ("/page", "/pages/x", "/v2/health", "/metrics/", "/healthz/x", "", "//", "/v1/modelsx", "/V1/models"):
        assert needed_key(path) == "inference", path
    for path in ("/v1/models", "/v1/models/", "/v1/models/x", "/v1/models//x"):
        assert needed_key(path) == "operator", path
