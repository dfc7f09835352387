"""No request reaches what the rules do not allow, whatever names, name servers and redirects say."""

import socket
from collections.abc import Callable
from ipaddress import ip_address

import pytest

from ivcp.serving.remote_videos import UriError
from tests.integration.serving.remote_videos.odd_server import Names, OddServer, ok, redirect

Get, Refusal = Callable[..., bytes], Callable[..., UriError]


def test_an_allowed_host_is_asked_plainly(get: Get, server: OddServer, names: Names):
    server.answers["/a"] = ok(b"video")
    assert get(f"http://videos.test:{server.port}/a?token=1%2F2") == b"video"
    head = server.requests[0].decode().splitlines()
    assert head[0] == "GET /a?token=1%2F2 HTTP/1.1"
    assert f"Host: videos.test:{server.port}" in head
    assert "Accept-Encoding: identity" in head
    assert not any(line.lower().startswith(("cookie", "authorization", "referer")) for line in head)
    assert names.asked == ["videos.test"]


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_no_proxy_of_the_environment_is_used(
    get: Get, server: OddServer, monkeypatch: pytest.MonkeyPatch, variable: str
):
    monkeypatch.setenv(variable, "http://127.0.0.1:1")
    server.answers["/a"] = ok(b"video")
    assert get("/a") == b"video"


@pytest.mark.parametrize(
    "address",
    [
        *(
            "127.0.0.1",
            "127.0.0.2",
            "10.0.0.7",
            "172.16.0.7",
            "192.168.0.7",
            "100.64.0.7",
            "169.254.169.254",
            "0.0.0.0",
        ),
        *("224.0.0.1", "240.0.0.1", "::1", "::", "fd00:ec2::254", "fe80::1", "fec0::1", "::ffff:127.0.0.1"),
        *("64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:7f00:1::", "::127.0.0.1", "ff02::1"),
    ],
)
def test_a_name_at_an_address_that_is_not_public_is_refused(
    refusal: Refusal, server: OddServer, names: Names, address: str, caplog: pytest.LogCaptureFixture
):
    names.answers["videos.test"] = [[address]]
    refused = refusal("/a", networks=())
    assert refused.code == "uri_forbidden"
    assert "the host videos.test is at an address that is not public" in str(refused)
    assert address not in str(refused)
    assert f"videos.test is at {ip_address(address)}, which is not public" in caplog.text
    assert not server.requests


def test_one_such_address_among_public_ones_is_enough(refusal: Refusal, names: Names, server: OddServer):
    names.answers["videos.test"] = [["192.0.2.1", "127.0.0.1"], ["127.0.0.1"]]
    assert refusal("/a").code == "uri_forbidden"
    assert not server.requests


def test_an_address_in_the_uri_is_checked_as_well(refusal: Refusal, server: OddServer):
    refused = refusal(f"http://127.0.0.1:{server.port}/a", networks=())
    assert refused.code == "uri_forbidden"
    assert not server.requests


def test_a_name_without_an_address_may_have_one_later(refusal: Refusal, names: Names):
    names.answers.clear()
    refused = refusal("/a")
    assert refused.code == "uri_failed"
    assert "the host videos.test has no address" in str(refused)


def test_a_second_answer_of_the_name_server_does_not_matter(get: Get, server: OddServer, names: Names):
    """The first answer is allowed; from the second on, the name is at another server of this machine."""
    server.answers["/a"] = ok(b"video")
    names.answers["videos.test"] = [["127.0.0.1"], ["127.0.0.2"]]
    with OddServer("127.0.0.2", server.port) as other:
        other.answers["/a"] = ok(b"secret")
        assert get("/a") == b"video"
        assert names.asked == ["videos.test"]
        assert not other.requests
        assert socket.getaddrinfo("videos.test", 80)[0][4][0] == "127.0.0.2"  # it was ready to answer so


def test_another_address_is_tried_where_the_first_does_not_answer(get: Get, server: OddServer, names: Names):
    server.answers["/a"] = ok(b"video")
    names.answers["videos.test"] = [["127.0.0.3", "127.0.0.1"]]
    assert get("/a", networks=("127.0.0.0/8",)) == b"video"


def test_a_server_that_is_not_there_may_be_there_later(refusal: Refusal, names: Names):
    names.answers["videos.test"] = [["127.0.0.3"]]
    refused = refusal("/a", networks=("127.0.0.0/8",))
    assert refused.code == "uri_failed"
    assert "cannot be reached on port" in str(refused)


@pytest.mark.parametrize(
    "location",
    [
        "http://10.0.0.7/",
        "http://169.254.169.254/latest/meta-data/",
        "http://127.0.0.1:1/",
        "http://evil.test/",
        "//evil.test/",
        "file:///etc/passwd",
        "ftp://videos.test/a",
        "s3://bucket/a",
        "http://name:secret@videos.test/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://videos.test\\@evil.test/",
        "data:video/mp4;base64,AAAA",
    ],
)
def test_a_redirect_elsewhere_is_not_followed(refusal: Refusal, server: OddServer, names: Names, location: str):
    server.answers["/a"] = redirect(location)
    refused = refusal("/a")
    assert refused.code == "uri_forbidden"
    assert f"http://videos.test:{server.port}/a redirects to what is not allowed" in str(refused)
    assert "secret" not in str(refused)
    assert names.asked == ["videos.test"]
    assert len(server.requests) == 1


@pytest.mark.parametrize("address", ["127.0.0.2", "10.0.0.7", "169.254.169.254", "fd00:ec2::254"])
def test_a_redirect_to_an_allowed_name_at_a_private_address_is_not_followed(
    refusal: Refusal, server: OddServer, names: Names, address: str
):
    names.answers["inside.videos.test"] = [[address]]
    server.answers["/a"] = redirect(f"http://inside.videos.test:{server.port}/b")
    with OddServer("127.0.0.2", server.port) as other:
        refused = refusal("/a")
        assert not other.requests
    assert refused.code == "uri_forbidden"
    assert "the host inside.videos.test is at an address that is not public" in str(refused)


def test_the_name_is_checked_anew_for_each_redirect(refusal: Refusal, server: OddServer, names: Names):
    names.answers["videos.test"] = [["127.0.0.1"], ["169.254.169.254"]]
    server.answers["/a"] = redirect("/b")
    assert refusal("/a").code == "uri_forbidden"
    assert names.asked == ["videos.test"] * 2


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_an_allowed_redirect_is_followed_without_cookies(get: Get, server: OddServer, names: Names, status: int):
    names.answers["cdn.videos.test"] = [["127.0.0.1"]]
    server.answers |= {
        "/a": redirect("b?x=1", status),
        "/b": redirect(f"http://cdn.videos.test:{server.port}/c", status),
        "/c": ok(b"video"),
    }
    assert get("/a") == b"video"
    assert [head.split()[1] for head in server.requests] == [b"/a", b"/b?x=1", b"/c"]
    assert not any(b"cookie" in head.lower() for head in server.requests)


@pytest.mark.parametrize(("allowed", "asked"), [(3, 4), (0, 1)])
def test_a_loop_of_redirects_ends(refusal: Refusal, server: OddServer, allowed: int, asked: int):
    server.answers |= {"/a": redirect("/b"), "/b": redirect("/a")}
    refused = refusal("/a", max_redirects=allowed)
    assert refused.code == "uri_failed"
    assert f"more than {allowed} redirects" in str(refused)
    assert len(server.requests) == asked


def test_a_redirect_to_nowhere_ends(refusal: Refusal, server: OddServer):
    server.answers["/a"] = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n"
    assert refusal("/a").code == "uri_failed"
