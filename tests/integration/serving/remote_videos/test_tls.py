"""The connection goes to a checked address; the certificate is that of the name."""

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from ivcp.serving.remote_videos import UriError
from tests.authority import Authority
from tests.certificates import write_certificate
from tests.integration.serving.remote_videos.odd_server import Names, OddServer, ok, redirect

Get, Refusal = Callable[..., bytes], Callable[..., UriError]


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """One that this process trusts."""
    made = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(made.certificate))
    return made


def test_the_certificate_and_sni_are_of_the_name(get: Get, names: Names, authority: Authority):
    context, seen = authority.server_context("videos.test"), []
    context.sni_callback = lambda connection, name, _: seen.append(name)
    with OddServer(context=context) as server:
        server.answers["/a"] = ok(b"video")
        assert get(f"https://videos.test:{server.port}/a", ports=(server.port,)) == b"video"
    assert seen == ["videos.test"]
    assert names.asked == ["videos.test"]


def test_an_address_in_the_uri_needs_a_certificate_of_its_own(get: Get, refusal: Refusal, authority: Authority):
    with OddServer(context=authority.server_context("127.0.0.1")) as server:
        server.answers["/a"] = ok(b"video")
        assert get(f"https://127.0.0.1:{server.port}/a", ports=(server.port,)) == b"video"
        refused = refusal(f"https://videos.test:{server.port}/a", ports=(server.port,))
    assert refused.code == "uri_failed"
    assert "its certificate is not accepted (Hostname mismatch" in str(refused)


def test_the_certificate_of_another_name_is_not_accepted(refusal: Refusal, authority: Authority):
    with OddServer(context=authority.server_context("other.test")) as server:
        refused = refusal(f"https://videos.test:{server.port}/a?token=secret", ports=(server.port,))
        assert not server.requests
    assert "certificate is not accepted (Hostname mismatch" in str(refused)
    assert "secret" not in str(refused)


def test_the_certificate_of_an_unknown_authority_is_not_accepted(
    refusal: Refusal, authority: Authority, tmp_path: Path
):
    (tmp_path / "unknown").mkdir()
    with OddServer(context=Authority(tmp_path / "unknown").server_context("videos.test")) as server:
        refused = refusal(f"https://videos.test:{server.port}/a", ports=(server.port,))
        assert not server.requests
    assert refused.code == "uri_failed"
    assert "certificate is not accepted" in str(refused)


def test_a_self_signed_certificate_is_not_accepted(
    refusal: Refusal, names: Names, authority: Authority, tmp_path: Path
):
    write_certificate(tmp_path / "own.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "own.pem")
    names.answers["localhost"] = [["127.0.0.1"]]
    with OddServer(context=context) as server:
        refused = refusal(f"https://localhost:{server.port}/a", hosts=("localhost",), ports=(server.port,))
        assert not server.requests
    assert "certificate is not accepted (self-signed certificate)" in str(refused)


def test_a_server_without_tls_is_no_https(refusal: Refusal, server: OddServer, authority: Authority):
    refused = refusal(f"https://videos.test:{server.port}/a")
    assert refused.code == "uri_failed"


def test_https_does_not_redirect_to_http(refusal: Refusal, server: OddServer, authority: Authority):
    server.answers["/b"] = ok(b"video")
    with OddServer(context=authority.server_context("videos.test")) as secure:
        secure.answers["/a"] = redirect(f"http://videos.test:{server.port}/b")
        refused = refusal(f"https://videos.test:{secure.port}/a", ports=(server.port, secure.port))
    assert refused.code == "uri_forbidden"
    assert "redirects from https to http" in str(refused)
    assert not server.requests


def test_http_may_redirect_to_https(get: Get, server: OddServer, authority: Authority):
    with OddServer(context=authority.server_context("videos.test")) as secure:
        secure.answers["/b"] = ok(b"video")
        server.answers["/a"] = redirect(f"https://videos.test:{secure.port}/b")
        assert get("/a", ports=(server.port, secure.port)) == b"video"
