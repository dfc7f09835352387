"""Paths as words of the command line, checked before anything is imported that takes seconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path


def checked_model_dir(word: str) -> str:
    """A model directory: a folder of this machine, or an s3:// URI.

    Raises:
        ValueError: it is neither.
    """
    from ivcp.settings.places import as_place

    place = _read("--model-dir", word, as_place)
    if not place.startswith("s3://") and not Path(place).is_dir():
        found = "is a file" if Path(place).is_file() else "does not exist"
        raise ValueError(f"--model-dir {place} {found}: give a directory that `ivcp run` or `ivcp export` wrote")
    return place


def checked_videos(words: Sequence[str]) -> list[Path]:
    """Video files of this machine; one that is missing is found where it is read, and costs itself alone.

    Raises:
        ValueError: a word is an address.
    """
    from ivcp.settings.places import as_local_path

    return [Path(_read("video", word, as_local_path)) for word in words]


def new_folder(path: Path) -> Path:
    """A folder that is to be written.

    Raises:
        ValueError: a file is in its place, or it is an address.
    """
    place = _local(path)
    in_the_way = next((part for part in (place, *place.parents) if part.exists()), place)
    if in_the_way.is_file():
        raise ValueError(f"{place}: expected a folder to write, but {in_the_way} is a file: give another path")
    return place


def new_file(path: Path) -> Path:
    """A file that is to be written; its folder is made.

    Raises:
        ValueError: a folder is in its place, a file in that of its folder, or it is an address.
    """
    place = _local(path)
    if place.is_dir():
        raise ValueError(f"{place} is a folder: give the path of a file to write")
    new_folder(place.parent).mkdir(parents=True, exist_ok=True)
    return place


def _local(path: Path) -> Path:
    scheme, colon, rest = str(path).partition(":/")  # a Path has lost one of the two slashes
    if colon and len(scheme) > 1 and scheme.isalnum():
        raise ValueError(f"{scheme}://{rest.lstrip('/')} is an address: give a path of this machine")
    return path.expanduser()


def _read(what: str, word: str, read: Callable[[str], str]) -> str:
    try:
        return read(word)
    except ValueError as error:
        raise ValueError(f"{what} {word}: {error}") from error
