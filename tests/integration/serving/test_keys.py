"""A predictor with keys: what reaches it without one, and what it writes down."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.integration.serving.documented import code_of
from tests.integration.serving.predictor_process import NAME, RunningPredictor, running
from tests.integration.serving.routes import data_uri, text_of

pytestmark = pytest.mark.slow
MARK = "SECRETMARK"
INFERENCE, OPERATOR = f"inference-{MARK}-0123456789", f"operator-{MARK}-0123456789"


@pytest.fixture(scope="module")
def guarded(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPredictor]:
    folder = tmp_path_factory.mktemp("guarded")
    for kind, key in (("keys", INFERENCE), ("operator_keys", OPERATOR)):
        (folder / kind).mkdir()
        (folder / kind / "team").write_text(key)
    settings = {"keys": folder / "keys", "operator_keys": folder / "operator_keys"}
    settings |= {"uri_hosts": "videos.invalid"}
    with running(model_dir, folder / "predictor.log", settings=settings) as started:
        yield started


SPELLINGS = (
    *("//v1/predict", "/v1//predict", "/v1/predict/", "/V1/predict", "/v1/Predict", "/./v1/predict", "/v1/./predict"),
    *("/page/../v1/predict", "/page/%2e%2e/v1/predict", "/page/..%2fv1/predict", "/page//../../v1/predict"),
    *("/%76%31/predict", "/v1%2fpredict", "/v1/predict%00", "/v1/predict%20", "/v1/predict;x=/page/", "/v1/predict?x"),
    *("/healthz/../v1/predict", "/metrics/..;/v1/predict", "http://predictor/v1/predict", "/v1/predict#/page/"),
    *("\\v1\\predict", "/v1\\predict", "/v1/predict%0d%0a", "/%2fv1/predict", "/v1/predict:batch/../predict"),
    *("/v1/models", "//v1/models", "/V1/models", "/page/../v1/models/x", "/v1/models/../predict", "/%2e/v1/models"),
)


@pytest.mark.parametrize("path", SPELLINGS)
def test_no_spelling_of_a_path_comes_past_the_keys(guarded: RunningPredictor, path: str) -> None:
    """A handler would answer 422: there is nothing in the form. The path is sent as it stands here."""
    address = urlsplit(guarded.url)
    for method in ("POST", "PUT", "GET"):
        lines = f"{method} {path} HTTP/1.1\r\nHost: predictor\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
            connection.sendall(lines.encode())
            answer = b""
            while received := connection.recv(65536):
                answer += received
        assert answer[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 401", b"HTTP/1.1 404"), (method, path, answer[:300])


def test_a_key_in_another_place_is_none(guarded: RunningPredictor, clip: Path) -> None:
    with guarded.client() as client:
        body = {"video": text_of(clip)}
        for path, headers in (
            (f"/v1/predict?key={INFERENCE}", {}),
            (f"/v1/predict?api_key={INFERENCE}", {}),
            ("/v1/predict", {"Cookie": f"X-API-Key={INFERENCE}"}),
            ("/v1/predict", {"Authorization": INFERENCE}),
            ("/v1/predict", {"Proxy-Authorization": f"Bearer {INFERENCE}"}),
        ):
            reply = client.post(path, json=body, headers=headers)
            assert (reply.status_code, code_of(reply)) == (401, "key_missing"), path


def test_a_refusal_for_its_key_comes_before_the_body(guarded: RunningPredictor) -> None:
    """Nothing of 40 MB is waited for."""
    address = urlsplit(guarded.url)
    head = b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 40000000\r\n\r\n"
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        connection.sendall(head)
        assert connection.recv(65536).startswith(b"HTTP/1.1 401")


def test_nothing_of_a_request_is_in_the_log(guarded: RunningPredictor, clip: Path) -> None:
    sound, text = clip.read_bytes(), f"this is a text with {MARK}".encode()
    key = {"Authorization": f"Bearer {INFERENCE}"}
    part = {"type": "video_url", "video_url": {"url": f"https://videos.invalid/{MARK}.mp4?{MARK}"}}
    tensor = {"name": "video", "shape": [1], "datatype": "BYTES", "data": [MARK]}
    with guarded.client(headers=key) as client:
        codes = [
            _said(client.post("/v1/predict", files={"video": (f"{MARK}.{MARK[:9]}", content)}, data=fields))
            for content in (sound, text, sound[: len(sound) // 2])
            for fields in ({"prompt": f"Is it {MARK}?"}, {MARK: MARK}, {"prompt": f"<|{MARK}|>"}, {"model": MARK})
        ]
        codes += [
            _said(client.post(route, json=body))
            for route, body in (
                ("/v1/predict", {"uri": f"https://{MARK}.invalid/{MARK}"}),
                ("/v1/predict", {"uri": f"https://videos.invalid/{MARK}?{MARK}"}),
                ("/v1/predict", {"uri": f"s3://{MARK}/{MARK}"}),
                ("/v1/predict", {"video": text_of(clip), "prompt": MARK, "model": MARK}),
                ("/v1/predict", {"video": text_of(clip), MARK: MARK}),
                ("/v1/predict", {"video": f"data:{MARK};base64,{MARK}"}),
                ("/v1/predict", {"video": MARK}),
                (
                    "/v1/predict:batch",
                    {"requests": [{"video": text_of(clip), "prompt": MARK}, {"uri": f"s3://{MARK}/x"}]},
                ),
                ("/v1/timeline", {"video": data_uri(clip), "prompt": MARK}),
                ("/classify", {"model": MARK, "messages": [{"role": "user", "content": [part]}]}),
                ("/classify", {"messages": [{"role": "user", "content": [part, {"type": "text", "text": MARK}]}]}),
                (f"/v2/models/{NAME}/infer", {"id": MARK, "inputs": [tensor], "parameters": {"prompt": MARK}}),
                (f"/v2/models/{MARK}/infer", {"inputs": [tensor]}),
                (f"/{MARK}", {MARK: MARK}),
            )
        ]
        codes += [_said(client.get(f"/v1/labels?model={MARK}")), _said(client.delete(f"/v1/models/{MARK}"))]
        codes.append(_said(client.post("/v1/predict", content=f'{{"{MARK}'.encode())))
        for wrong in ({"X-API-Key": f"{MARK}-of-nobody"}, {"Authorization": f"Bearer {MARK}"}, {"Cookie": MARK}):
            codes.append(_said(httpx.post(f"{guarded.url}/v1/predict?{MARK}", headers=wrong, trust_env=False)))
        codes.append(_said(client.get("/v1/model", headers={"X-Request-Id": f"{MARK} with a space"})))
    deadline = time.monotonic() + 60
    while (noted := _noted(guarded, codes)) != dict(codes) and time.monotonic() < deadline:
        time.sleep(0.1)  # a line is written behind its answer
    assert noted == dict(codes)
    log = guarded.log.read_text()
    assert MARK not in log, [line for line in log.splitlines() if MARK in line]
    assert "Traceback" not in log
    assert {
        "ok",
        "key_unknown",
        "model_not_found",
        "uri_forbidden",
        "uri_failed",
        "bad_prompt",
        "video_not_a_video",
    } <= set(dict(codes).values())
    assert {line.get("key") for line in guarded.requests()} == {None, "inference/team"}


def _said(reply: httpx.Response) -> tuple[str, str]:
    """The request's id and its code."""
    return reply.headers["x-request-id"], code_of(reply)


def _noted(predictor: RunningPredictor, codes: list[tuple[str, str]]) -> dict[str, str]:
    """What the log says of these requests."""
    ids = dict(codes).keys()
    lines = [line for line in predictor.requests() if line["request_id"] in ids]
    return {line["request_id"]: line.get("code", "ok") for line in lines}


def test_operators_routes(guarded: RunningPredictor, model_dir: Path) -> None:
    body = {"uri": str(model_dir), "version": "8"}
    with guarded.client(headers={"X-API-Key": INFERENCE}) as client:
        for reply in (
            client.get("/v1/models"),
            client.put("/v1/models/other", json=body),
            client.delete("/v1/models/other"),
        ):
            assert (reply.status_code, code_of(reply)) == (403, "key_not_allowed")
    with guarded.client(headers={"X-API-Key": OPERATOR}) as client:
        before = client.get("/v1/models").json()["models"]
        assert [model["name"] for model in before] == [NAME]
        assert client.put("/v1/models/other", json=body).status_code == 200
        assert client.get("/v1/model", params={"model": "other"}).json()["version"] == "8"
        assert client.delete("/v1/models/other").json()["models"] == before
