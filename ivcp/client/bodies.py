"""Videos as request bodies: files are sent piece by piece, addresses are left to the server."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ivcp.client.waiting import Deadline

Video = str | Path | bytes
"""A path, a file's content, or a URI (https://, http://, s3://) that the server fetches."""
Field = str | int | float | bool | None

_URI = re.compile(r"(https?|s3)://", re.IGNORECASE)
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}")
_TYPE = "application/octet-stream"


def is_uri(video: Video) -> bool:
    """Whether the server fetches it."""
    return isinstance(video, str) and _URI.match(video) is not None


@contextmanager
def body_of(video: Video, fields: Mapping[str, Field], deadline: Deadline) -> Iterator[dict[str, Any]]:
    """What httpx needs to know of a request: a form with the file, or JSON with its address. Null fields are left out.

    Raises:
        FileNotFoundError, PermissionError: the file cannot be read.
        ValueError: it is a folder or a pipe.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    if is_uri(video):
        yield {"json": {"uri": video, **given}}
        return
    with _opened(video) as file:
        yield {"files": {"video": (_name(video), _Timed(file, deadline), _TYPE)}, "data": _as_text(given)}


def _opened(video: Video) -> IO[bytes]:
    if isinstance(video, bytes):
        return io.BytesIO(video)
    path = Path(video)
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is a folder or a pipe: expected a video file")
    return path.open("rb")


def _name(video: Video) -> str:
    """The server needs no more of a file's name than its suffix."""
    suffix = "" if isinstance(video, bytes) else Path(video).suffix
    return f"video{suffix}" if _SUFFIX.fullmatch(suffix) else "video"


def _as_text(fields: Mapping[str, Field]) -> dict[str, str]:
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in fields.items()}


class _Timed:
    """A file that is read until the deadline: httpx limits the time of each piece, not that of all."""

    def __init__(self, file: IO[bytes], deadline: Deadline) -> None:
        self._file, self._deadline = file, deadline

    def read(self, size: int = -1) -> bytes:
        self._deadline.check()
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()
