"""One GET, and the redirects that it leads to, each of them a new connection to an address that was checked."""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import lru_cache

import httpcore

from ivcp.network import authorities
from ivcp.serving.remote_videos.errors import UriError
from ivcp.serving.remote_videos.pinned import PinnedBackend, resolve
from ivcp.serving.remote_videos.rules import UriRules
from ivcp.serving.remote_videos.uris import HttpUri, follow

_REDIRECTS = (301, 302, 303, 307, 308)
_MISSING, _REFUSED = (404, 410), (401, 403, 407, 451)
_HEAD_BYTES = 256 * 1024
"""Of all that comes before the body, and what of the body comes with it."""
_FRAMING = 2
"""With the frames of its chunks a body may be so much longer."""


@asynccontextmanager
async def opened(uri: HttpUri, rules: UriRules) -> AsyncIterator[AsyncIterator[bytes]]:
    """The video's bytes as they come; whoever reads them counts them.

    Raises:
        UriError: there is no video, or not a right answer; also while the bytes are read.
    """
    for _ in range(rules.max_redirects + 1):
        async with _answered(uri, rules) as response:
            if response.status not in _REDIRECTS:
                _check(uri, response, rules)
                yield response.aiter_stream()
                return
        uri = follow(uri, _header(response, b"location"), rules)
    raise UriError("uri_failed", f"{uri} is behind more than {rules.max_redirects} redirects: give its last URI")


@asynccontextmanager
async def _answered(uri: HttpUri, rules: UriRules) -> AsyncIterator[httpcore.Response]:
    backend = PinnedBackend(await resolve(uri, rules), _HEAD_BYTES)
    read = rules.read_seconds
    with _translated(uri):
        async with (
            httpcore.AsyncConnectionPool(
                ssl_context=_trusted(os.environ.get("SSL_CERT_FILE")),
                network_backend=backend,
                max_connections=1,
                max_keepalive_connections=0,
            ) as pool,
            pool.stream(
                "GET",
                httpcore.URL(scheme=uri.scheme, host=uri.host, port=uri.port, target=uri.target),
                headers={
                    "Host": uri.authority,
                    "User-Agent": "ivcp",
                    "Accept": "*/*",
                    "Accept-Encoding": "identity",
                    "Connection": "close",
                },
                extensions={"timeout": {"connect": rules.connect_seconds, "read": read, "write": read, "pool": read}},
            ) as response,
        ):
            backend.bytes_left = _FRAMING * rules.max_bytes + _HEAD_BYTES
            yield response


@lru_cache(maxsize=1)
def _trusted(_: str | None) -> ssl.SSLContext:
    """Reading the authorities takes tens of milliseconds; made anew where the file is another one."""
    return authorities()


def _check(uri: HttpUri, response: httpcore.Response, rules: UriRules) -> None:
    status = response.status
    if status in _MISSING:
        raise UriError("uri_not_found", f"{uri} is not there (HTTP {status}): check the URI, or send the video itself")
    if status in _REFUSED:
        raise UriError(
            "uri_forbidden",
            f"{uri}: its server refuses access (HTTP {status}): expected a URI that needs no key, or one with a "
            "signature that has not expired",
        )
    if status != 200:
        raise UriError("uri_failed", f"{uri}: its server answers HTTP {status}, expected 200: try again later")
    encoding = _header(response, b"content-encoding")
    if encoding.lower() not in ("", "identity"):
        raise UriError(
            "uri_failed", f"{uri}: its server sends the content encoded, expected the file as it is: send it itself"
        )
    rules.check_size(uri, int(_header(response, b"content-length") or 0))


def _header(response: httpcore.Response, name: bytes) -> str:
    """The header's value, empty where there is none; of several, the last; h11 has checked its characters."""
    return {key.lower(): value for key, value in response.headers}.get(name, b"").decode("utf-8", "replace")


@contextmanager
def _translated(uri: HttpUri) -> Iterator[None]:
    try:
        yield
    except httpcore.TimeoutException as error:
        raise UriError("uri_timeout", f"{uri}: its server takes too long to answer: send the video itself") from error
    except httpcore.ConnectError as error:
        reason = f"its server cannot be reached on port {uri.port}"
        if error.args and isinstance(error.args[0], ssl.SSLCertVerificationError):  # httpcore cuts the chain
            reason = f"its certificate is not accepted ({error.args[0].verify_message})"
        raise UriError("uri_failed", f"{uri}: {reason}: check the URI, or send the video itself") from error
    except (httpcore.NetworkError, httpcore.ProtocolError) as error:
        raise UriError(
            "uri_failed", f"{uri}: its server breaks off, or answers in no right HTTP: try again later"
        ) from error
