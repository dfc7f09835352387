"""Videos on S3, through a real endpoint."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from ivcp import storage
from ivcp.serving.remote_videos import UriError, UriRules, fetch, from_s3
from tests.ports import free_port
from tests.s3_api.proxy import Faults, Request
from tests.s3_api.server import S3Server

VIDEO = bytes(range(256)) * 100
RULES = UriRules(buckets=("s3://bucket/allowed",), max_bytes=len(VIDEO))


def put(key: str, content: bytes, folder: Path) -> str:
    """Uploads an object; its URI."""
    (folder / "upload").write_bytes(content)
    storage.upload(folder / "upload", uri := f"s3://bucket/{key}")
    return uri


def get(uri: str, into: Path, **rules: Any) -> bytes:
    num_bytes = asyncio.run(asyncio.wait_for(fetch(uri, into, rules=RULES.model_copy(update=rules)), 60))
    assert into.stat().st_size == num_bytes
    return into.read_bytes()


def refusal(uri: str, into: Path, **rules: Any) -> UriError:
    with pytest.raises(UriError) as caught:
        get(uri, into, **rules)
    return caught.value


def test_an_object_below_an_allowed_prefix_is_read(s3: S3Server, tmp_path: Path):
    uri = put("allowed/deep/a clip ü.mp4", VIDEO, tmp_path)
    assert get(uri, tmp_path / "clip.mp4") == VIDEO


@pytest.mark.parametrize("part_bytes", [1000, len(VIDEO) // 2, len(VIDEO)])
def test_it_is_read_in_parts(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part_bytes: int, faults: Faults
):
    uri = put("allowed/parts.mp4", VIDEO, tmp_path)
    monkeypatch.setattr(from_s3, "_PART_BYTES", part_bytes)
    assert get(uri, tmp_path / "clip.mp4") == VIDEO
    assert faults.count("GET") == -(-len(VIDEO) // part_bytes)


def test_an_empty_object_is_an_empty_file(s3: S3Server, tmp_path: Path):
    assert get(put("allowed/empty.mp4", b"", tmp_path), tmp_path / "clip.mp4") == b""


def test_one_that_is_too_large_is_refused_by_its_head(tmp_path: Path, faults: Faults):
    uri = put("allowed/large.mp4", VIDEO + b"v", tmp_path)
    refused = refusal(uri, tmp_path / "clip.mp4")
    assert refused.code == "uri_too_large"
    assert str(refused) == f"{uri} has more than the 25600 bytes allowed: send a shorter clip"
    assert faults.count("GET") == 0


@pytest.mark.parametrize("key", ["allowed2/a.mp4", "allowe/a.mp4", "a.mp4", "allowed/../a.mp4", "allowed/%2e%2e/a.mp4"])
def test_one_elsewhere_is_not_asked_for(tmp_path: Path, faults: Faults, key: str):
    assert refusal(f"s3://bucket/{key}", tmp_path / "clip.mp4").code == "uri_forbidden"
    assert not faults.requests
    assert not (tmp_path / "clip.mp4").exists()


def test_another_bucket_is_not_asked_for(tmp_path: Path, faults: Faults):
    assert refusal("s3://bucket2/allowed/a.mp4", tmp_path / "clip.mp4").code == "uri_forbidden"
    assert not faults.requests


@pytest.mark.parametrize("uri", ["s3://bucket/allowed/nothing.mp4", "s3://no-bucket/a.mp4"])
def test_one_that_is_not_there(s3: S3Server, tmp_path: Path, uri: str):
    refused = refusal(uri, tmp_path / "clip.mp4", buckets=("s3://bucket", "s3://no-bucket"))
    assert refused.code == "uri_not_found"
    assert uri in str(refused)


def test_refused_credentials_are_the_operators_matter(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    uri = put("allowed/a.mp4", VIDEO, tmp_path)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    refused = refusal(uri, tmp_path / "clip.mp4")
    assert refused.code == "uri_forbidden"
    assert "AWS" not in str(refused)
    assert "check the S3 credentials and their rights" in caplog.text
    assert "wrong-secret" not in caplog.text


def test_an_endpoint_that_is_away_is_not_named(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    port = free_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    refused = refusal("s3://bucket/allowed/a.mp4", tmp_path / "clip.mp4")
    assert refused.code == "uri_failed"
    assert str(port) not in str(refused)
    assert str(port) in caplog.text


def test_a_slow_endpoint_ends_with_the_time(tmp_path: Path, faults: Faults):
    uri = put("allowed/slow.mp4", VIDEO, tmp_path)
    faults.seconds = lambda request: 3.0
    refused = refusal(uri, tmp_path / "clip.mp4", total_seconds=0.5)
    assert refused.code == "uri_timeout"
    assert str(refused) == f"{uri} took longer than the 0.5 s allowed: send the video itself"


@pytest.mark.parametrize("other", [VIDEO[::-1], VIDEO[:-1], VIDEO + b"v" * 100_000])
def test_one_that_changes_while_it_is_read_is_no_mixture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3: S3Server, faults: Faults, other: bytes
):
    uri = put("allowed/changing.mp4", VIDEO, tmp_path)
    monkeypatch.setattr(from_s3, "_PART_BYTES", 15_000)

    def changed(request: Request) -> float:
        if request.method == "GET" and faults.count("GET") == 2:
            put("allowed/changing.mp4", other, tmp_path)
        return 0.0

    faults.seconds = changed
    refused = refusal(uri, tmp_path / "clip.mp4")
    assert refused.code == "uri_failed"
    assert "changed while it was read" in str(refused)
    assert (tmp_path / "clip.mp4").stat().st_size <= len(VIDEO)
