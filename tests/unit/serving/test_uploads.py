import errno
import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest

from ivcp.serving.uploads import UploadFolder, write_upload

SERVER = """
import time
from ivcp.serving.uploads import UploadFolder
folder = UploadFolder()
with folder.folder() as inner:
    path = inner / "video.mp4"
    path.write_bytes(b"video")
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
    with suppress(ValueError), folder.folder() as inner:
        (inner / "video.mp4").write_bytes(b"video")
        raise ValueError
    deadline = time.monotonic() + 60
    while list(folder.path.iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with folder.folder() as inner:
        (inner / "video.mp4").write_bytes(b"video")
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
    assert not left.parent.parent.exists()
    assert {path.name for path in parent.iterdir()} == {"notes.txt", living.path.name, again.path.name}
    living.remove()
    again.remove()


def test_a_folder_of_somebody_else_is_refused(parent: Path, tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    parent.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError, match="belongs to another user: remove it, or set TMPDIR"):
        UploadFolder()


def test_a_file_that_has_no_place_is_not_begun(tmp_path: Path):
    too_large = shutil.disk_usage(tmp_path).free * 2
    with pytest.raises(OSError, match="No space left") as raised:
        write_upload(io.BytesIO(b"its first bytes"), too_large, tmp_path / "video.mp4")
    assert raised.value.errno == errno.ENOSPC
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_of_a_file_that_cannot_be_written(tmp_path: Path):
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell():
                raise OSError(errno.EIO, "broken")
            return super().read(4)

    with pytest.raises(OSError, match="broken"):
        write_upload(Broken(b"a video"), 7, tmp_path / "video.mp4")
    assert not list(tmp_path.iterdir())
    write_upload(io.BytesIO(b"a video"), 7, tmp_path / "video.mp4")
    assert (tmp_path / "video.mp4").read_bytes() == b"a video"
