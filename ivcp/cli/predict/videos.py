"""Words of the command line as videos: files, folders, globs and addresses."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

_ADDRESS = re.compile(r"(https?|s3)://", re.IGNORECASE)


def find_videos(words: Sequence[str], *, has_server: bool) -> list[str]:
    """The videos that the words name, in their order, each once; those of a folder or a glob are sorted.

    A file that is missing is found where it is read, and costs itself alone. Addresses with https:// are a server's.

    Raises:
        ValueError: a word cannot be a video, or stands for none.
        FileNotFoundError, PermissionError, ConnectionError: an s3:// prefix cannot be listed.
    """
    found: dict[str, str] = {}
    for word in words:
        for name in _named_by(word, has_server=has_server):
            found.setdefault(_identity(name), name)
    return list(found.values())


def _named_by(word: str, *, has_server: bool) -> Iterable[str]:
    if address := _ADDRESS.match(word):
        if address[1].lower() == "s3":
            return _in_folder(word.rstrip("/")) if word.endswith("/") else [word]
        if has_server:
            return [word]
        raise ValueError(f"video {word}: download it, and give its path; or ask a server that may fetch it, with --url")
    from ivcp.cli.paths import checked_videos

    (path,) = checked_videos([word])
    if path.is_dir():
        return _in_folder(str(path))
    if not path.exists() and glob.has_magic(word):
        return _matched(str(path))
    return [str(path)]


def _in_folder(folder: str) -> list[str]:
    """Videos by their suffix, below a folder or an s3:// prefix at any depth."""
    from ivcp.imports.video_files import VIDEO_SUFFIXES

    if not (videos := _videos_below(folder)):
        raise ValueError(f"{folder} holds no video: expected files that end with {', '.join(sorted(VIDEO_SUFFIXES))}")
    return videos


def _matched(pattern: str) -> Iterator[str]:
    if not (matches := sorted(glob.glob(pattern, recursive=True))):  # noqa: PTH207 (patterns may be absolute)
        raise ValueError(f"{pattern} matches no file: give a file, a folder, or a pattern that matches some")
    for match in matches:
        yield from _videos_below(match) if Path(match).is_dir() else (match,)


def _videos_below(folder: str) -> list[str]:
    from ivcp.imports.video_files import VideoFiles

    return [f"{folder.rstrip('/')}/{name}" for name in VideoFiles(folder).videos]


def _identity(name: str) -> str:
    return name if _ADDRESS.match(name) else os.path.normpath(Path(name).absolute())
