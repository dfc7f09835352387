"""A connection to an address that was checked, whatever the name server says a moment later."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from typing import Any

import httpcore

from ivcp.serving.remote_videos.addresses import Address, may_be_reached
from ivcp.serving.remote_videos.errors import UriError
from ivcp.serving.remote_videos.rules import UriRules
from ivcp.serving.remote_videos.uris import HttpUri

log = logging.getLogger(__name__)


async def resolve(uri: HttpUri, rules: UriRules) -> list[Address]:
    """The addresses of the URI's host, all of which the rules allow; a name is asked for once.

    Raises:
        UriError: uri_forbidden: one of them is not allowed. uri_failed: there is none.
    """
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(uri.host, uri.port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise UriError(
            "uri_failed", f"the host {uri.host} has no address: check its spelling, or try again later"
        ) from error
    addresses = list(dict.fromkeys(ip_address(str(entry[4][0])) for entry in found))
    refused = [address for address in addresses if not may_be_reached(address, rules.networks)]
    if refused:
        log.warning("%s is at %s, which is not public and in no network of the rules", uri.host, refused[0])
        raise UriError(
            "uri_forbidden",
            f"the host {uri.host} is at an address that is not public: expected a public one, or a network that this "
            "server's operator allows; or send the video itself",
        )
    return addresses


class PinnedBackend(httpcore.AsyncNetworkBackend):
    """Connects to the first of some addresses that answers, whatever host is asked for."""

    def __init__(self, addresses: Sequence[Address], bytes_left: int) -> None:
        self._addresses = addresses
        self._backend = httpcore.AnyIOBackend()
        self.bytes_left = bytes_left
        """So much may still arrive, of headers, frames of chunks and body together."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Raises:
        httpcore.ConnectError, httpcore.ConnectTimeout: no address answers; that of the last one.
        """
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in self._addresses:
            try:
                stream = await self._backend.connect_tcp(str(address), port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return _CountedStream(stream, self)
        raise failure


class _CountedStream(httpcore.AsyncNetworkStream):
    """A stream that ends with an error when more arrives than its backend allows.

    h11 bounds a header, but not how many interim responses or extensions of chunks come before a body's bytes.
    """

    def __init__(self, stream: httpcore.AsyncNetworkStream, backend: PinnedBackend) -> None:
        self._stream, self._backend = stream, backend

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        content = await self._stream.read(max_bytes, timeout)
        self._backend.bytes_left -= len(content)
        if self._backend.bytes_left < 0:
            raise httpcore.RemoteProtocolError("more than a response needs")
        return content

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        return _CountedStream(await self._stream.start_tls(ssl_context, server_hostname, timeout), self._backend)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
