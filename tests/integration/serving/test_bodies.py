"""Bodies that nobody means well: each is refused with its code and at once, and the next request is answered."""

from __future__ import annotations

import errno
import json
import random
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.integration.serving.documented import CODES, code_of, predicted
from tests.integration.serving.predictor_process import NAME, RunningPredictor
from tests.integration.serving.routes import data_uri, text_of

pytestmark = pytest.mark.slow
SECONDS = 30.0
INFER = f"/v2/models/{NAME}/infer"


@pytest.fixture
def client(predictor: RunningPredictor, clip: Path) -> Iterator[httpx.Client]:
    """Behind each test the predictor answers as before."""
    before = len(predictor.log.read_text())
    with predictor.client(timeout=SECONDS) as started:
        yield started
        assert predicted(started, clip.read_bytes())[0] == "ok"
        assert started.get("/readyz").status_code == 200
    assert "Exception in ASGI application" not in predictor.log.read_text()[before:]


def part(name: str, content: bytes, *, filename: str | None = None) -> bytes:
    named = f'; filename="{filename}"' if filename else ""
    return f'--b\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'.encode() + content + b"\r\n"


END = b"--b--\r\n"
FORMS = {
    "empty": b"",
    "no part": END,
    "another boundary": part("video", b"x", filename="a.mp4").replace(b"--b", b"--c") + b"--c--\r\n",
    "no end": part("video", b"x", filename="a.mp4"),
    "cut in a header": part("video", b"x", filename="a.mp4")[:20],
    "no header": b"--b\r\n\r\nx\r\n" + END,
    "a bad header": b"--b\r\nContent-Disposition form-data\r\n\r\nx\r\n" + END,
    "no name": b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n" + END,
    "a long header": b"--b\r\nContent-Disposition: form-data; name=" + b"x" * 100_000 + b"\r\n\r\nx\r\n" + END,
    "many headers": b"--b\r\n" + b"X: y\r\n" * 5000 + b"\r\nx\r\n" + END,
    "many fields": part("top_k", b"1") * 5000 + END,
    "many files": part("video", b"x", filename="a.mp4") * 5000 + END,
    "a large field": part("prompt", b"x" * 3_000_000) + END,
    "null in a prompt": part("prompt", b"a\0b") + part("video", b"x", filename="a.mp4") + END,
    "null in a name": part("pro\0mpt", b"a") + part("video", b"x", filename="a\0.mp4") + END,
    "no UTF-8": part("prompt", b"\xff\xfe\xfd") + part("video", b"x", filename="a.mp4") + END,
    "no number": part("top_k", b"many") + part("video", b"x", filename="a.mp4") + END,
    "NaN": part("start_seconds", b"nan") + part("video", b"x", filename="a.mp4") + END,
    "a huge number": part("end_seconds", b"1e400") + part("video", b"x", filename="a.mp4") + END,
    "digits": part("top_k", b"9" * 10_000) + part("video", b"x", filename="a.mp4") + END,
    "video is text": part("video", b"x") + END,
    "a path": part("video", b"x", filename="../../../../etc/passwd") + END,
    "a long suffix": part("video", b"x", filename="a." + "m" * 5000) + END,
    "an odd name": part("video", b"x", filename="a\xe9\u202e|;`$(id).mp4") + END,
}


@pytest.mark.parametrize("case", FORMS)
def test_forms(client: httpx.Client, case: str) -> None:
    for route in ("/v1/predict", "/v1/timeline"):
        kind = {"Content-Type": "multipart/form-data; boundary=b"}
        assert code_of(client.post(route, content=FORMS[case], headers=kind)) != "ok"


@pytest.mark.parametrize(
    "kind", ["multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=" + "b" * 5000]
)
def test_boundaries(client: httpx.Client, kind: str) -> None:
    content = part("video", b"x", filename="a.mp4") + END
    assert code_of(client.post("/v1/predict", content=content, headers={"Content-Type": kind})) == "bad_request"


DEEP = 100_000
JSON: dict[str, bytes] = {
    "nothing": b"",
    "null": b"null",
    "a number": b"1",
    "a list": b"[]",
    "cut": b'{"video": "',
    "twice": b"{}{}",
    "no UTF-8": b'{"video": "\xff\xfe"}',
    "UTF-16": '{"video": "x"}'.encode("utf-16"),
    "lone surrogate": b'{"video": "\\ud800"}',
    "surrogate in a prompt": b'{"video": "AAAA", "prompt": "\\ud800"}',
    "null character": b'{"uri": "https://a\\u0000b/"}',
    "deep lists": b'{"video": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    "deep objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "many keys": json.dumps({f"key{number}": 1 for number in range(50_000)}).encode(),
    "a huge number": b'{"video": "AAAA", "top_k": ' + b"9" * 100_000 + b"}",
    "an exponent": b'{"video": "AAAA", "start_seconds": 1e999999}',
    "NaN": b'{"video": "AAAA", "start_seconds": NaN}',
    "no base64": b'{"video": "###"}',
    "half a letter": b'{"video": "A"}',
    "base64 of nothing": b'{"video": ""}',
    "an odd letter": '{"video": "\u00e9\u00e9\u00e9\u00e9"}'.encode(),
    "a data: URI of text": b'{"video": "data:text/plain,hello"}',
    "a data: URI alone": b'{"video": "data:"}',
    "a data: URI of nothing": b'{"video": "data:video/mp4;base64,"}',
    "many parameters": b'{"video": "data:video/mp4' + b";a=b" * 20_000 + b'"}',
    "frames of nothing": b'{"frames": []}',
    "an empty frame": b'{"frames": [""]}',
    "frames of text": b'{"frames": ["aGVsbG8="]}',
    "frames that are none": b'{"frames": [1, null]}',
    "too many frames": json.dumps({"frames": ["AAAA"] * 5000}).encode(),
    "three videos": b'{"video": "AAAA", "uri": "https://a/", "frames": ["AAAA"]}',
    "a file": b'{"uri": "file:///etc/passwd"}',
    "a long URI": json.dumps({"uri": "https://" + "a" * 100_000}).encode(),
    "negative": b'{"video": "AAAA", "fps": -1}',
    "booleans": b'{"video": true, "top_k": true}',
}


@pytest.mark.parametrize("case", JSON)
def test_json(client: httpx.Client, case: str) -> None:
    """Of each route that reads JSON; what is wrong inside a batch may be an answer of its own."""
    body = JSON[case]
    for route in ("/v1/predict", "/v1/timeline", "/v1/predict:batch", "/classify", INFER):
        reply = client.post(route, content=body, headers={"Content-Type": "application/json"})
        assert code_of(reply) != "ok", route
        assert len(reply.content) < 100_000, route
    reply = client.post("/v1/predict:batch", content=b'{"requests": [' + body + b"]}")
    if code_of(reply) == "ok":
        (item,) = reply.json()["answers"]
        assert item["error"]["code"] in CODES - {"internal"}


@pytest.mark.parametrize("field", ["start_seconds", "end_seconds", "window_seconds", "stride_seconds"])
@pytest.mark.parametrize("seconds", [5e-324, 1e-300, 1e15, 1e300, 1e308])
def test_seconds_that_no_video_has(client: httpx.Client, clip: Path, field: str, seconds: float) -> None:
    """Of a sound video: the clock of FFmpeg has 64 bits, and a quotient has no place for all of them."""
    for route in ("/v1/predict", "/v1/timeline"):
        code = code_of(client.post(route, json={"video": text_of(clip), field: seconds}))
        assert code == "bad_request_fields" or (field.startswith(("start", "end")) and seconds < 1)


@pytest.mark.parametrize("route", ["/v1/predict", "/v1/timeline", "/v1/predict:batch", "/classify", INFER])
def test_many_values_cost_nothing_but_their_bytes(client: httpx.Client, route: str) -> None:
    """Sixteen megabytes of zeros that do not fit took seven gigabytes and a minute in which no probe was answered."""
    for field in ("requests", "frames", "messages", "inputs", "other"):
        body = f'{{"{field}": [' + "0," * 200_000 + "0]}"
        reply = client.post(route, content=body, headers={"Content-Type": "application/json"})
        assert code_of(reply) == "bad_request"
        assert "values" in reply.json()["detail"]


@pytest.mark.parametrize("route", ["/v1/predict:batch", "/classify", INFER])
def test_forms_are_not_read_into_memory(client: httpx.Client, route: str) -> None:
    """They may be larger than what is."""
    reply = client.post(route, files={"video": b"x"})
    assert code_of(reply) == "unsupported_media_type"


BYTES = {"name": "video", "shape": [1], "datatype": "BYTES"}
TENSORS: dict[str, tuple[dict[str, Any], bytes]] = {
    "a length beyond the data": (BYTES, struct.pack("<I", 100) + b"x"),
    "the longest length": (BYTES, struct.pack("<I", 2**32 - 1) + b"x"),
    "half a length": (BYTES, b"\x01\x00"),
    "nothing": (BYTES, b""),
    "two for one": (BYTES, (struct.pack("<I", 1) + b"x") * 2),
    "one for two": (BYTES | {"shape": [2]}, struct.pack("<I", 1) + b"x"),
    "bytes behind the last": (BYTES, struct.pack("<I", 1) + b"x" + b"\0"),
    "no shape": (BYTES | {"shape": []}, struct.pack("<I", 1) + b"x"),
    "a shape of nothing": (BYTES | {"shape": [0]}, b""),
    "a negative shape": (BYTES | {"shape": [-1, -1]}, struct.pack("<I", 1) + b"x"),
    "a shape that overflows": (BYTES | {"shape": [2**32, 2**32, 2**32]}, struct.pack("<I", 1) + b"x"),
    "a huge shape": (BYTES | {"shape": [10**30]}, struct.pack("<I", 1) + b"x"),
    "many dimensions": (BYTES | {"shape": [1] * 5000}, struct.pack("<I", 1) + b"x"),
    "numbers": (BYTES | {"datatype": "FP32"}, struct.pack("<f", 1.0)),
    "many elements": (BYTES | {"shape": [5000]}, (struct.pack("<I", 1) + b"x") * 5000),
    "empty elements": (BYTES | {"shape": [250]}, struct.pack("<I", 0) * 250),
}


@pytest.mark.parametrize("case", TENSORS)
def test_binary_tensors(client: httpx.Client, case: str) -> None:
    tensor, content = TENSORS[case]
    size = {"parameters": {"binary_data_size": len(content)}}
    head = json.dumps({"inputs": [tensor | size]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    assert code_of(client.post(INFER, content=head + content, headers=headers)) != "ok"


@pytest.mark.parametrize("length", ["-1", "x", "", "1" * 5000, "999999", "3", "0", "\u0661"])
def test_lengths_of_the_head(client: httpx.Client, length: str) -> None:
    content = json.dumps({"inputs": [BYTES | {"data": ["AAAA"]}]}).encode()
    headers = {b"Inference-Header-Content-Length": length.encode()}
    assert code_of(client.post(INFER, content=content, headers=headers)) in {"bad_request", "bad_request_fields"}


@pytest.mark.parametrize("size", [None, -1, 0, 3, 10**30, 1.5, "5", True, [], {}])
def test_sizes_of_binary_data(client: httpx.Client, size: Any) -> None:
    content = struct.pack("<I", 1) + b"x"
    head = json.dumps({"inputs": [BYTES | {"parameters": {"binary_data_size": size}}]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    assert code_of(client.post(INFER, content=head + content, headers=headers)) == "bad_request_fields"


def test_bodies_at_random(client: httpx.Client, clip: Path) -> None:
    """Sound bodies of every route with some bytes changed."""
    video, chance = clip.read_bytes(), random.Random(0)
    url = {"type": "video_url", "video_url": {"url": data_uri(clip)}}
    sound: list[tuple[str, str, bytes]] = [
        ("/v1/predict", "multipart/form-data; boundary=b", part("video", video, filename="a.mp4") + END),
        ("/v1/predict", "application/json", json.dumps({"video": text_of(clip), "top_k": 2}).encode()),
        ("/v1/timeline", "application/json", json.dumps({"video": text_of(clip), "window_seconds": 1}).encode()),
        ("/v1/predict:batch", "application/json", json.dumps({"requests": [{"video": text_of(clip)}] * 2}).encode()),
        ("/classify", "application/json", json.dumps({"messages": [{"role": "user", "content": [url]}]}).encode()),
        (INFER, "application/json", json.dumps({"inputs": [BYTES | {"data": [text_of(clip)]}]}).encode()),
    ]
    for number in range(60):
        route, kind, content = sound[number % len(sound)]
        changed = bytearray(content)
        for _ in range(chance.choice((1, 3, 30))):
            changed[chance.randrange(min(len(changed), chance.choice((200, 10**9))))] = chance.randrange(256)
        cut = bytes(changed[: chance.choice((len(changed), chance.randrange(len(changed))))])
        code_of(client.post(route, content=cut, headers={"Content-Type": kind}))


POST = b"POST /v1/predict HTTP/1.1\r\n"
RAW = {
    "a length that is none": POST + b"Host: a\r\nContent-Length: x\r\n\r\n",
    "a negative length": POST + b"Host: a\r\nContent-Length: -5\r\n\r\n",
    "two lengths": POST + b"Host: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    "a length and chunks": POST + b"Host: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "bad chunks": POST + b"Host: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nxx\r\n",
    "an unknown encoding": POST + b"Host: a\r\nTransfer-Encoding: gzip\r\n\r\n",
    "a huge length": POST + b"Host: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
    "a length of a terabyte": POST + b"Host: a\r\nContent-Length: 1000000000000\r\n\r\n",
    "no host": POST + b"Content-Length: 0\r\n\r\n",
    "a null in a header": POST + b"Host: a\r\nX: a\0b\r\n\r\n",
    "a null in the path": b"GET /v1/\0model HTTP/1.1\r\nHost: a\r\n\r\n",
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "large headers": b"GET /v1/model HTTP/1.1\r\nHost: a\r\n" + b"X: " + b"y" * 200_000 + b"\r\n\r\n",
    "an old version": b"POST /v1/predict HTTP/0.9\r\n\r\n",
    "a method that is none": b"BREW /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("case", RAW)
def test_raw_requests(predictor: RunningPredictor, client: httpx.Client, case: str) -> None:
    """What no client library sends: refused, or the connection is closed; never a failure, never silence."""
    address = urlsplit(predictor.url)
    with socket.create_connection((address.hostname, address.port), timeout=SECONDS) as connection:
        answer = b""
        try:
            connection.sendall(RAW[case])
            connection.shutdown(socket.SHUT_WR)
            while received := connection.recv(65536):
                answer += received
        except OSError as error:  # it does not read what it has refused
            if error.errno not in (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN):
                raise
    status = answer[:12]
    assert not answer or status.startswith((b"HTTP/1.1 4", b"HTTP/1.1 501", b"HTTP/1.1 505")), answer[:300]


def test_a_body_that_is_shorter_than_it_said(predictor: RunningPredictor, client: httpx.Client) -> None:
    """The client waits for an answer and sends no more: it is told so when the time for uploads is over."""
    address = urlsplit(predictor.url)
    head = POST + b"Host: a\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n"
    with socket.create_connection((address.hostname, address.port), timeout=60.0) as connection:
        connection.sendall(head + b'{"video": ')
        with connection.makefile("rb") as reader:
            answer = reader.read()
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"upload_timeout" in answer


def test_compressed_bodies_are_not_taken_for_json(client: httpx.Client) -> None:
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    reply = client.post("/v1/predict", content=b"\x1f\x8b\x08\0\0\0\0\0", headers=headers)
    assert code_of(reply) in {"bad_request", "unsupported_media_type"}
