"""Answers that are too long, too slow, or none."""

import gzip
import time
from collections.abc import Callable, Iterator
from itertools import repeat
from pathlib import Path

import pytest

from ivcp.serving.remote_videos import UriError
from tests.integration.serving.remote_videos.odd_server import OddServer, ok

Get, Refusal = Callable[..., bytes], Callable[..., UriError]
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
LIMIT = 100_000
BOMB = gzip.compress(bytes(10_000_000), 1)
"""Shorter than the limit."""
assert len(BOMB) < LIMIT


def drops(server: OddServer, head: bytes, drop: bytes, seconds: float) -> Callable[[], Iterator[bytes]]:
    """An answer whose body, or head, never ends: a drop every so often."""

    def answer() -> Iterator[bytes]:
        yield head
        while not server.closing.wait(seconds):
            yield drop

    return answer


def endless(head: bytes, part: bytes) -> Callable[[], Iterator[bytes]]:
    def answer() -> Iterator[bytes]:
        yield head
        yield from repeat(part, 100_000)

    return answer


def test_a_video_of_just_the_limit_is_taken(get: Get, server: OddServer):
    server.answers["/a"] = ok(b"v" * LIMIT)
    assert get("/a") == b"v" * LIMIT


def test_a_body_in_chunks_or_until_the_end_is_taken(get: Get, server: OddServer):
    server.answers["/chunks"] = CHUNKED + b"3\r\nvid\r\n2;name=value\r\neo\r\n0\r\nTrailer: x\r\n\r\n"
    server.answers["/end"] = b"HTTP/1.0 200 OK\r\n\r\nvideo"
    assert get("/chunks") == b"video"
    assert get("/end") == b"video"


def test_tiny_chunks_do_not_count_against_the_limit_twice(get: Get, server: OddServer):
    server.answers["/a"] = CHUNKED + b"8\r\nvideodat\r\n" * 1000 + b"0\r\n\r\n"
    assert get("/a", max_bytes=8000) == b"videodat" * 1000


def test_a_length_beyond_the_limit_is_refused_unread(refusal: Refusal, server: OddServer, into: Path):
    server.answers["/a"] = ok(b"v" * (LIMIT + 1))
    refused = refusal("/a?token=secret")
    assert refused.code == "uri_too_large"
    assert str(refused) == (
        f"http://videos.test:{server.port}/a has more than the 100000 bytes allowed: send a shorter clip"
    )
    assert into.stat().st_size == 0


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n"]
)
def test_an_endless_body_without_length_is_cut(refusal: Refusal, server: OddServer, into: Path, head: bytes):
    server.answers["/a"] = endless(head, b"v" * 65536)
    refused = refusal("/a")
    assert refused.code in ("uri_too_large", "uri_failed")  # the last: an empty length is none
    assert into.stat().st_size <= LIMIT
    assert server.sent_bytes < 50_000_000


def test_an_endless_body_in_chunks_is_cut(refusal: Refusal, server: OddServer, into: Path):
    server.answers["/a"] = endless(CHUNKED, b"10000\r\n" + b"v" * 65536 + b"\r\n")
    assert refusal("/a").code == "uri_too_large"
    assert into.stat().st_size <= LIMIT


@pytest.mark.parametrize(
    ("head", "part"),
    [
        (b"HTTP/1.1 200 OK\r\nX: ", b"a" * 65536),
        (b"HTTP/1.1 200 OK\r\n", b"X: a\r\n" * 10_000),
        (b"", b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" * 1000),
        (b"", b"a" * 65536),
        (CHUNKED, b"1;" + b"x" * 20_000 + b"\r\nv\r\n"),
        (CHUNKED + b"1;", b"x" * 65536),
        (CHUNKED + b"0\r\n", b"Trailer: a\r\n" * 5000),
    ],
    ids=["one header", "headers", "interim answers", "status line", "extensions", "one extension", "trailers"],
)
def test_what_is_endless_around_a_body_is_cut(refusal: Refusal, server: OddServer, head: bytes, part: bytes):
    server.answers["/a"] = endless(head, part)
    refused = refusal("/a")
    assert refused.code == "uri_failed"
    assert "breaks off, or answers in no right HTTP" in str(refused)
    assert server.sent_bytes < 50_000_000


@pytest.mark.parametrize(
    ("head", "drop"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b"v"),
        (CHUNKED, b"1\r\nv\r\n"),
        (b"HTTP/1.1 200 OK\r\nX: ", b"a"),
        (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    ],
    ids=["body", "chunks", "header", "interim answers"],
)
def test_a_slow_drip_ends_with_the_time(refusal: Refusal, server: OddServer, head: bytes, drop: bytes):
    """Each drop comes within the limit of a silence."""
    server.answers["/a"] = drops(server, head, drop, 0.05)
    refused = refusal("/a?token=secret", total_seconds=1.0)
    assert refused.code == "uri_timeout"
    assert str(refused) == (
        f"http://videos.test:{server.port}/a took longer than the 1 s allowed: send the video itself"
    )


def test_the_requests_deadline_ends_it_as_well(refusal: Refusal, server: OddServer):
    server.answers["/a"] = drops(server, CHUNKED, b"1\r\nv\r\n", 0.05)
    refused = refusal("/a", deadline=time.monotonic() + 0.5)
    assert refused.code == "uri_timeout"
    assert "longer than the request's deadline" in str(refused)


def test_a_deadline_that_has_passed_asks_nobody(refusal: Refusal, server: OddServer):
    assert refusal("/a", deadline=time.monotonic() - 1).code == "uri_timeout"
    assert not server.requests


def test_a_silence_ends_it(refusal: Refusal, server: OddServer):
    server.answers["/a"] = drops(server, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nv", b"v", 60)
    refused = refusal("/a", read_seconds=0.3)
    assert refused.code == "uri_timeout"
    assert "takes too long to answer" in str(refused)


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "br", "identity, gzip", "x-unknown"])
def test_encoded_content_is_refused_and_never_decoded(refusal: Refusal, server: OddServer, into: Path, encoding: str):
    server.answers["/a"] = ok(BOMB, f"Content-Encoding: {encoding}")
    refused = refusal("/a")
    assert refused.code == "uri_failed"
    assert "sends the content encoded, expected the file as it is" in str(refused)
    assert into.stat().st_size == 0


def test_an_encoded_transfer_is_refused(refusal: Refusal, server: OddServer):
    server.answers["/a"] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\nvideo\r\n0\r\n\r\n"
    assert refusal("/a").code == "uri_failed"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nvideo",
        CHUNKED + b"5\r\nvid",
        CHUNKED + b"5\r\nvideo\r\n",
        CHUNKED + b"nothing\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nvideo",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"220 mail.test ESMTP\r\n",
        b"\x00" * 100,
        b"",
    ],
)
def test_a_wrong_answer_is_one_code_and_not_repeated(refusal: Refusal, server: OddServer, answer: bytes):
    server.answers["/a"] = answer
    refused = refusal("/a?token=secret")
    assert refused.code == "uri_failed"
    assert "breaks off, or answers in no right HTTP" in str(refused)
    for word in ("secret", "SSH", "ESMTP", "nothing"):
        assert word not in str(refused)


def test_more_than_the_length_says_is_not_read(get: Get, server: OddServer):
    server.answers["/a"] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nvideo and more"
    assert get("/a") == b"video"


@pytest.mark.parametrize(
    ("status", "code"),
    [(404, "uri_not_found"), (410, "uri_not_found"), (401, "uri_forbidden"), (403, "uri_forbidden")]
    + [(status, "uri_failed") for status in (201, 204, 206, 300, 304, 400, 405, 429, 500, 502, 503)],
)
def test_each_status_has_its_code(refusal: Refusal, server: OddServer, status: int, code: str):
    server.answers["/a"] = f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode()
    refused = refusal("/a?token=secret")
    assert refused.code == code
    assert f"HTTP {status}" in str(refused)
    assert "secret" not in str(refused)


def test_a_file_that_cannot_be_written_is_no_fault_of_the_other_server(get: Get, server: OddServer, into: Path):
    into.symlink_to("/dev/full")
    server.answers["/a"] = ok(b"v" * 90_000)
    with pytest.raises(OSError, match="No space left"):
        get("/a")
