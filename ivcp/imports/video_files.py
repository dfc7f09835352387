"""The videos' folder: which of the listed files are there, under which name."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from ivcp import storage

_NAMES = "mp4 avi mov mkv webm mpg mpeg m4v wmv flv 3gp ts mts m2ts ogv ogg gif"
VIDEO_SUFFIXES = frozenset(f".{name}" for name in _NAMES.split())


@dataclass(frozen=True)
class VideoFiles:
    """A folder or s3:// prefix, listed once."""

    root: str

    @cached_property
    def files(self) -> frozenset[str]:
        """All files below the root, with `/` between folders."""
        return frozenset(storage.list_files(self.root))

    @cached_property
    def videos(self) -> tuple[str, ...]:
        """Those of them that are videos by their suffix, sorted; hidden files and folders are left out."""
        return tuple(sorted(file for file in self.files if is_video(file) and "/." not in f"/{file}"))

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for video in self.videos:
            found[PurePosixPath(video).stem].append(video)
        return found

    def with_stem(self, stem: str) -> str | None:
        """The only video of this name without suffix, wherever it lies below the root."""
        found = self._by_stem.get(stem, ())
        return found[0] if len(found) == 1 else None

    def find(self, listed: str) -> str | None:
        """The video that is listed: under its name, or with another suffix in the same folder; None where absent."""
        if is_elsewhere(listed):
            return listed if storage.exists(listed) else None
        for name in (str(PurePosixPath(listed)), listed.replace("\\", "/")):
            if name in self.files:
                return name
        wanted = PurePosixPath(listed.replace("\\", "/"))
        same = [found for found in self._by_stem.get(wanted.stem, ()) if PurePosixPath(found).parent == wanted.parent]
        return same[0] if len(same) == 1 and wanted.suffix.lower() in VIDEO_SUFFIXES else None


def is_video(name: str) -> bool:
    """Whether this is the name of a video, by its suffix."""
    path = PurePosixPath(name)
    return path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".")


def is_elsewhere(path: str) -> bool:
    """Whether the videos' folder does not matter: an absolute path or s3:// URI."""
    return storage.is_s3(path) or Path(path).is_absolute()
