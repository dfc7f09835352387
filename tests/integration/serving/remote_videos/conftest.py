import asyncio
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ivcp.serving.remote_videos import UriError, UriRules, fetch
from tests.integration.serving.remote_videos.odd_server import Names, OddServer

LONGEST = 60.0
"""Seconds after which a fetch hangs."""


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """The name server: `videos.test` is on loopback."""
    made = Names({"videos.test": [["127.0.0.1"]], "127.0.0.1": [["127.0.0.1"]]})
    monkeypatch.setattr(socket, "getaddrinfo", made.getaddrinfo)
    return made


@pytest.fixture
def server(names: Names) -> Iterator[OddServer]:
    with OddServer() as running:
        yield running


@pytest.fixture
def rules(server: OddServer) -> UriRules:
    """Allow plain HTTP to the server, by two of its names and its address."""
    return UriRules(
        hosts=("videos.test", "*.videos.test", "127.0.0.1"),
        schemes=("https", "http"),
        ports=(server.port,),
        networks=("127.0.0.1/32",),
        max_bytes=100_000,
    )


@pytest.fixture
def into(tmp_path: Path) -> Path:
    return tmp_path / "clip.mp4"


@pytest.fixture
def get(into: Path, server: OddServer, rules: UriRules) -> Callable[..., bytes]:
    """Fetches a path of the server, or a whole URI, and gives what is in the file then."""

    def call(uri: str, **changes: Any) -> bytes:
        whole = f"http://videos.test:{server.port}{uri}" if uri.startswith("/") else uri
        deadline = changes.pop("deadline", None)
        asked = UriRules.model_validate(rules.model_dump() | changes)
        num_bytes = asyncio.run(asyncio.wait_for(fetch(whole, into, rules=asked, deadline=deadline), LONGEST))
        content = into.read_bytes()
        assert len(content) == num_bytes
        return content

    return call


@pytest.fixture
def refusal(get: Callable[..., bytes]) -> Callable[..., UriError]:
    """What a fetch is refused with."""

    def call(uri: str, **changes: Any) -> UriError:
        with pytest.raises(UriError) as caught:
            get(uri, **changes)
        return caught.value

    return call
