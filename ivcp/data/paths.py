"""Paths as people write them: what each kind of them means here, and which cannot be read."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

from ivcp import storage

_FILE = "file://"
_S3 = "s3://"
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/|(data):\w+/\w+")
"""Of at least two letters: one is a drive of Windows."""
_DRIVE = re.compile(r"[A-Za-z]:[\\/]|\\\\")


class PathError(ValueError):
    """A path that cannot be read from here; the message shows it, and says what it is and what to do."""

    def __init__(self, message: str, *, kind: str) -> None:
        super().__init__(message)
        self.kind = kind
        """What it is: the same for all paths of this kind."""


def resolve(path: str, folder: str) -> str:
    """A path that somebody wrote, as an absolute one or an s3:// URI.

    A relative one starts from `folder`, a path or s3:// prefix; `file://` is a local path, and `~/` the user's folder.

    Raises:
        PathError: it cannot be read from here.
    """
    path = local_form(path)
    if path.startswith(_S3) or Path(path).is_absolute():
        return path
    if not folder.startswith("/"):
        folder = local_form(folder)
        folder = folder if folder.startswith(_S3) else str(Path(folder).absolute())
    joined = storage.join(folder, path)
    if "\\" in path and not _is_there(joined):
        slashes = path.replace("\\", "/")
        raise PathError(f"{path!r} is a path of Windows: write / between folders, {slashes!r}", kind="backslash")
    return joined


def local_form(path: str) -> str:
    """`file://` URIs as paths, and `~/` as the user's folder; other local paths and s3:// URIs stay as they are.

    Raises:
        PathError: it is an address that cannot be read from here, or no path at all.
    """
    if any(character in path for character in "\0\n\r"):
        raise PathError(f"{path[:200]!r} holds a line break or a zero character: remove it", kind="character")
    if is_broken(path):
        raise PathError(f"{path[:200]!a} is no name in UTF-8: rename the file, e.g. with convmv", kind="encoding")
    if path.startswith(_FILE):
        local = unquote(path.removeprefix(_FILE).removeprefix("localhost"))
        if not local.startswith("/") or _DRIVE.match(local[1:]):
            raise PathError(f"{path!r} is no file of this machine: expected file:///folder/file", kind="file")
        return local
    if _DRIVE.match(path) and not Path(path).is_absolute():
        raise PathError(f"{path!r} is a file of a Windows machine: write the path that it has here", kind="drive")
    address = _ADDRESS.match(path)
    if address and not path.startswith(_S3):
        scheme = address[1] or address[2]
        raise PathError(f"{path[:200]!r} {_explain_address(scheme.lower())}", kind=scheme)
    return str(Path(path).expanduser()) if path.startswith("~/") else path


def is_broken(text: str) -> bool:
    """Whether a text holds half of a character, as names of files in another encoding do: no file can hold it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _is_there(path: str) -> bool:
    """Whether a local file has this very name: some programs unpack `folder\\name` as one."""
    try:
        return not path.startswith(_S3) and Path(path).exists()
    except OSError:  # a name that is too long
        return False


def _explain_address(scheme: str) -> str:
    if scheme in ("http", "https", "ftp"):
        return "is an address on the web: download the file and write its path, or copy it to S3 and write s3://…"
    if scheme in ("s3", "s3a", "s3n"):
        return "is no address on S3: write s3://bucket/name"
    if scheme == "data":
        return "is a file's content and not its path: `ivcp import` writes such content to files, and rows with paths"
    if scheme == "file":
        return "is no file of this machine: expected file:///folder/file"
    return f"is an address that cannot be read here ({scheme}): expected a path, or s3://bucket/name"
