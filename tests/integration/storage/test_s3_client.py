"""Where credentials and settings come from: what the AWS tools read counts, each against a real endpoint."""

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ivcp import storage
from ivcp.storage.s3_client import client, forget_clients, is_unsigned
from tests.s3_api.server import S3Server

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
STS = """<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>key</AccessKeyId><SecretAccessKey>secret</SecretAccessKey>
<SessionToken>token</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>
<AssumedRoleUser><Arn>arn:aws:sts::1:assumed-role/r/s</Arn><AssumedRoleId>a:s</AssumedRoleId></AssumedRoleUser>
</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"""
CONTAINER = json.dumps(
    {"AccessKeyId": "key", "SecretAccessKey": "secret", "Token": "token", "Expiration": "2099-01-01T00:00:00Z"}
)


@pytest.fixture
def bare(s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> S3Server:
    """The endpoint with an object `a`, and no credentials: what is in this machine's home does not count."""
    storage.write_text("s3://bucket/a", "text")
    for name in KEYS:
        monkeypatch.delenv(name)
    (tmp_path / "home" / ".aws").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return s3


@contextmanager
def answering(text: str, kind: str) -> Iterator[tuple[str, list[str]]]:
    """A server that answers the same to every request; its URL, and the request bodies and authorizations."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            seen.append(f"{self.headers.get('Authorization')} {body}")
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        do_POST = do_GET  # noqa: N815

        def log_message(self, *words: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", seen
    finally:
        server.shutdown()
        server.server_close()


def sent_headers() -> list[dict[str, str]]:
    """The headers of all requests from now on."""
    headers: list[dict[str, str]] = []
    forget_clients()
    made = client(os.getpid())
    made.meta.events.register(
        "before-send.s3", lambda request, **_: headers.append({k.lower(): _text(v) for k, v in request.headers.items()})
    )
    return headers


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def test_credentials_that_appear_later_are_found(bare: S3Server, monkeypatch: pytest.MonkeyPatch):
    for name, value in KEYS.items():
        with pytest.raises(PermissionError, match="credentials"):
            storage.exists("s3://bucket/a")
        monkeypatch.setenv(name, value)
    assert storage.read_text("s3://bucket/a") == "text"


def test_a_credentials_file_that_appears_later_is_found(bare: S3Server, tmp_path: Path):
    assert is_unsigned(client(os.getpid()))  # as for public buckets, with no refusal
    file = tmp_path / "home" / ".aws" / "credentials"
    file.write_text("[default]\naws_access_key_id = key\naws_secret_access_key = secret\n")
    assert storage.read_text("s3://bucket/a") == "text"


def test_keys_that_are_replaced_count(bare: S3Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of yesterday")
    with pytest.raises(PermissionError, match="the server refuses access"):
        storage.read_text("s3://bucket/a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    assert storage.read_text("s3://bucket/a") == "text"


def test_one_client_serves_as_long_as_nothing_changes(s3: S3Server):
    assert client(os.getpid()) is client(os.getpid())


def test_a_profile(bare: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    config = tmp_path / "aws-config"
    config.write_text("[profile lab]\nregion = eu-north-1\naws_access_key_id = key\naws_secret_access_key = secret\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    assert storage.read_text("s3://bucket/a") == "text"
    assert client(os.getpid()).meta.region_name == "eu-north-1"


def test_web_identity(bare: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """As EKS gives it to a pod: with AWS_REGION, and no AWS_DEFAULT_REGION."""
    (tmp_path / "token").write_text("signed by the cluster")
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/training")
    with answering(STS, "text/xml") as (url, seen):
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", url)
        assert storage.read_text("s3://bucket/a") == "text"
    assert "WebIdentityToken=signed+by+the+cluster" in seen[0]


def test_container_credentials(bare: S3Server, monkeypatch: pytest.MonkeyPatch):
    """As EKS Pod Identity and ECS give them."""
    with answering(CONTAINER, "application/json") as (url, seen):
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", url)
        monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "of the pod")
        assert storage.read_text("s3://bucket/a") == "text"
    assert seen[0].startswith("of the pod")


def test_the_region_is_the_one_that_other_tools_read(s3: S3Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    assert client(os.getpid()).meta.region_name == "eu-west-1"
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    assert client(os.getpid()).meta.region_name == "eu-central-1"
    headers = sent_headers()
    storage.exists("s3://bucket/a")
    assert "/eu-central-1/s3/aws4_request" in headers[0]["authorization"]


def test_an_endpoint_of_s3_alone(s3: S3Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3.endpoint)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    storage.write_text("s3://bucket/b", "text")
    assert storage.read_text("s3://bucket/b") == "text"


def test_who_pays_is_said_with_every_request(s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "file").write_text("text")
    monkeypatch.setenv("AWS_REQUEST_PAYER", "requester")
    headers = sent_headers()
    storage.upload(tmp_path / "file", "s3://bucket/paid/file")
    assert storage.local_path("s3://bucket/paid").is_dir()
    storage.read_text("s3://bucket/paid/file")
    storage.delete("s3://bucket/paid")
    assert len(headers) > 5
    assert {one.get("x-amz-request-payer") for one in headers} == {"requester"}
    monkeypatch.setenv("AWS_REQUEST_PAYER", "somebody")
    with pytest.raises(ValueError, match="AWS_REQUEST_PAYER = 'somebody': expected requester"):
        storage.exists("s3://bucket/a")
