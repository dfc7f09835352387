"""Keys as files: the name of a file is the key's name, its content the key.

A folder is a mounted Kubernetes secret, or an ordinary one. In a mounted secret the files are links through `..data`,
a link to a hidden folder that kubelet exchanges in one rename (`pkg/volume/util/atomic_writer.go`): the files of that
folder are read, so that all are of one version. Names that begin with a dot are nobody's keys.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

MIN_CHARACTERS = 16
_MAX_BYTES = 4096
_KEY = re.compile(rb"[\x21-\x7e]+")
"""What a header carries."""

Version = tuple[tuple[str, int, int, int, int], ...]


class KeyFilesError(ValueError):
    """A file, or a folder, holds no key; the message names it, not its content."""


def digest_of(key: bytes) -> bytes:
    """What is kept of a key, and compared: 32 bytes, whatever its length."""
    return hashlib.sha256(key).digest()


def version_of(path: Path) -> Version:
    """What changes when a file is written, added, removed, or kubelet exchanges all of them.

    Raises:
        OSError: `path` cannot be read.
    """
    return tuple(_file_version(file) for file in _files(path))


def _file_version(file: Path) -> tuple[str, int, int, int, int]:
    try:
        status = file.stat()
    except OSError:  # a broken link: `read_keys` says so
        return str(file), 0, 0, 0, 0
    return str(file), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def read_keys(path: Path, before: Mapping[str, bytes]) -> tuple[dict[str, bytes], list[str]]:
    """The digest of each key by its name, and what is wrong with files.

    A file with something wrong keeps the key that it had `before`; one that is gone takes its key with it.

    Raises:
        OSError: `path` cannot be read.
    """
    keys: dict[str, bytes] = {}
    problems = []
    for file in _files(path):
        try:
            keys[file.name] = digest_of(_read(file))
        except (OSError, KeyFilesError) as error:
            problems.append(str(error))
            if file.name in before:
                keys[file.name] = before[file.name]
    if not keys and not problems:
        problems.append(f"{path} holds no key: expected a file, or a folder with a file for each key")
    return keys, problems


def _files(path: Path) -> Iterator[Path]:
    """The files that hold keys, sorted by their names.

    Raises:
        OSError: `path` is not there, or cannot be read.
    """
    folder = Path(os.path.realpath(path / "..data")) if (path / "..data").exists() else path
    if not stat.S_ISDIR(folder.stat().st_mode):
        yield path
        return
    for file in sorted(folder.iterdir()):
        if not file.name.startswith(".") and not file.is_dir():
            yield file


def _read(file: Path) -> bytes:
    """Raises:
    KeyFilesError: it holds no key.
    OSError: it cannot be read.
    """
    status = file.stat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_BYTES:
        raise KeyFilesError(f"{file} is no key: expected an ordinary file of at most {_MAX_BYTES} bytes")
    key = file.read_bytes().strip()
    if not key:
        raise KeyFilesError(f"{file} is empty: expected a key of at least {MIN_CHARACTERS} characters, or no such file")
    if not _KEY.fullmatch(key):
        raise KeyFilesError(f"{file} holds no key: expected one line of printable ASCII characters without spaces")
    if len(key) < MIN_CHARACTERS:
        raise KeyFilesError(
            f"{file} holds a key of {len(key)} characters: expected at least {MIN_CHARACTERS}, as from "
            "`openssl rand -hex 32`"
        )
    return key
