"""The media of rows that are conversations already: the columns that name them, and content in the place of paths."""

from __future__ import annotations

import hashlib
import mimetypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ivcp.data.data_urls import DataUrlError, read_data_url
from ivcp.data.media import medium_of_part
from ivcp.data.problems import RowError
from ivcp.data.registry import DatasetInfo
from ivcp.data.values import as_list, is_missing
from ivcp.imports.video_files import VideoFiles
from ivcp.records import MediumKind

NAMES: Mapping[MediumKind, tuple[str, ...]] = {
    "video": ("videos", "video", "path"),
    "image": ("images", "image"),
    "audio": ("audios", "audio"),
}
"""What people call the columns of media."""
_MOST_BYTES = 2**28
_DATA = "data:"


@dataclass
class InlineFiles:
    """Files whose content stands in the rows; they are written when all rows are found to be sound."""

    folder: Path
    contents: dict[str, bytes] = field(default_factory=dict)
    """By the path that they get, which follows from the content: the same one is one file."""

    def path_of(self, url: str) -> str:
        """The path of the file that holds what a `data:` URL does.

        Raises:
            RowError: it holds no image, video or sound, or one that is too large.
        """
        if len(url) > _MOST_BYTES * 4 // 3:
            raise RowError(
                f"{url[:40]}… holds more than {_MOST_BYTES >> 20} MiB: write it to a file, and its path here"
            )
        try:
            found = read_data_url(url)
        except DataUrlError as error:
            raise RowError(f"{url[:40]!r}…: {error}", kind="data URL") from error
        kind = (found.media_type or "").partition("/")[0]
        suffix = mimetypes.guess_extension(found.media_type or "", strict=False)
        if kind not in NAMES or suffix is None:
            raise RowError(
                f"{url[:40]!r}…: expected an image, a video or a sound, as data:image/png;base64,…", kind="data URL"
            )
        path = str(self.folder.absolute() / f"{hashlib.sha256(found.content).hexdigest()[:32]}{suffix}")
        self.contents[path] = found.content
        return path


def media_columns(info: DatasetInfo) -> dict[MediumKind, str]:
    """The columns that name media, by what they name."""
    columns = info.columns
    named: dict[MediumKind, str | None] = {"video": columns.videos, "image": columns.images, "audio": columns.audios}
    return {kind: column for kind, column in named.items() if column is not None}


def paths_of(row: Mapping[str, Any], column: str) -> list[Any]:
    """What stands in a column of media; none where it is empty."""
    return [] if is_missing(row.get(column)) else as_list(row[column])


def with_parts_in_columns(
    row: Mapping[str, Any], info: DatasetInfo, notice: Callable[[MediumKind], None] = lambda kind: None
) -> dict[str, Any]:
    """A row with the paths of its turns' parts in its columns, and parts that say what they are: `{"type": "image"}`.

    Raises:
        RowError: a column has paths too.
    """
    names = {kind: called[0] for kind, called in NAMES.items()} | media_columns(info)
    column, changed = info.columns.messages, dict(row)
    if info.formatting == "alpaca" or is_missing(row.get(column)):
        return changed
    moved: dict[str, list[Any]] = {}

    def without_path(part: Any) -> Any:
        given = {key: value for key, value in part.items() if value is not None} if isinstance(part, dict) else {}
        found = medium_of_part(given)
        if found is None or found[1] is None:
            return part
        notice(found[0])
        moved.setdefault(names[found[0]], []).append(found[1])
        return {"type": found[0]}

    def without_paths(turn: Any) -> Any:
        content = turn.get(info.tags.content_tag) if isinstance(turn, dict) else None
        if not isinstance(content, list):
            return turn
        return {**turn, info.tags.content_tag: [without_path(part) for part in content]}

    turns = [without_paths(turn) for turn in as_list(row[column])]
    for name, paths in moved.items():
        if paths_of(row, name):
            raise RowError(f"{name} and the parts of a turn both name a path: expected one of them")
        changed[name] = paths
    return changed | {column: turns} if moved else changed


def plain_path(path: Any, inline: InlineFiles, videos: VideoFiles) -> Any:
    """A path as text, of a file that will be written where it is a `data:` URL; with `/` between folders where it has
    Windows' and no file of the folder is called so."""
    if isinstance(path, dict) and path.get("bytes", "") is None:
        path = path.get("path")
    if isinstance(path, str) and path.startswith(_DATA):
        return inline.path_of(path)
    is_windows = isinstance(path, str) and "\\" in path and path[1:2] != ":" and path not in videos.files
    return path.replace("\\", "/") if is_windows else path
