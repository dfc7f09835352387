import asyncio
import io
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Message

from ivcp.serving.uploads import UploadFolder, UploadLimit

SERVER = """
import io, time
from ivcp.serving.uploads import UploadFolder
folder = UploadFolder()
with folder.holding(io.BytesIO(b"video"), suffix=".mp4") as path:
    print(path, flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path / f"ivcp-uploads-{os.getuid()}"


def test_files_are_removed_whatever_happens(parent: Path):
    folder = UploadFolder()
    upload = io.BytesIO(b"video")
    with suppress(RuntimeError), folder.holding(upload, suffix=".mp4") as path:
        assert path.read_bytes() == b"video"
        assert path.suffix == ".mp4"
        assert upload.closed  # the form's own copy
        raise RuntimeError
    assert not list(folder.path.iterdir())
    folder.remove()
    assert not list(parent.iterdir())


def test_what_a_killed_server_left_is_removed_and_nothing_else(parent: Path):
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().strip())
        (parent / "notes.txt").write_text("not a server's")
        living = UploadFolder()
        assert left.is_file(), "its owner lives"
        os.kill(process.pid, signal.SIGKILL)
    assert left.is_file()
    again = UploadFolder()
    assert not left.parent.exists()
    assert {path.name for path in parent.iterdir()} == {"notes.txt", living.path.name, again.path.name}
    living.remove()
    again.remove()


def test_a_folder_of_somebody_else_is_refused(parent: Path, tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    parent.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError, match="belongs to another user: remove it, or set TMPDIR"):
        UploadFolder()


def test_bytes_count_until_a_request_ends_or_its_client_is_gone():
    totals: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (message := await receive())["type"] == "http.request":
            totals.append(limit._total)
            if not message.get("more_body"):
                return
        raise ConnectionError("the client is gone")

    limit = UploadLimit(app, max_bytes=1000, max_total_bytes=1000)

    async def request(*messages: Message) -> None:
        waiting = iter(messages)

        async def receive() -> Message:
            return next(waiting)

        async def send(_: Message) -> None:
            pass

        await limit({"type": "http"}, receive, send)

    part: Message = {"type": "http.request", "body": b"12345", "more_body": True}
    asyncio.run(request(part, part | {"more_body": False}))
    with pytest.raises(ConnectionError):
        asyncio.run(request(part, {"type": "http.disconnect"}))
    assert totals == [5, 10, 5]
    assert limit._total == 0
