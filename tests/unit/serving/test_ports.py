import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ivcp.serving.server import serve
from ivcp.serving.settings import ServerSettings
from tests.ports import free_port


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


def test_a_port_that_is_taken_is_said_before_the_model_is_loaded(taken: int, tmp_path: Path):
    with pytest.raises(OSError, match=rf"127\.0\.0\.1:{taken} cannot be listened on .* choose another port"):
        serve(tmp_path, port=taken)


def test_a_server_whose_probes_nobody_would_hear_does_not_start(taken: int, tmp_path: Path):
    with pytest.raises(OSError, match="choose another probe_port"):
        serve(tmp_path, port=free_port(), settings=ServerSettings(probe_port=taken))
