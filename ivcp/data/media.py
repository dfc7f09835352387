"""The videos, images and sounds that a row names, and the group that a name tells."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ivcp.data.paths import PathError, resolve
from ivcp.data.problems import RowError
from ivcp.data.registry import DatasetInfo
from ivcp.data.values import as_list, is_missing, offered, shown
from ivcp.records import MediumKind, RowKind

Video = str | tuple[str, ...]
"""Absolute path or s3:// URI of a video, an image or a sound; a tuple holds the frame images of a video."""

_AS_DATASETS_HAS_IT = {"path", "bytes"}
_KINDS: dict[str, MediumKind] = {
    "video": "video",
    "video_url": "video",
    "image": "image",
    "image_url": "image",
    "audio": "audio",
    "audio_url": "audio",
    "input_audio": "audio",
}
"""Types of the parts of a content that are media."""
_PLACES = ("path", "url")
"""Where a part has its path, beside a key that is called as its type."""
_UCF_GROUP = re.compile(r"_g\d+(?=_|$)")


def read_media(
    raw: Mapping[str, Any], info: DatasetInfo, media_dir: str, *, rows: RowKind
) -> dict[MediumKind, list[Video]]:
    """The videos, images and sounds of a row, each in their order, from its columns or from the parts of its turns.

    Raises:
        RowError: the row names one that cannot be read from here, or in both places; or has no video, where it is one
            with a class.
    """
    columns = info.columns
    if rows == "labels":
        return {"video": read_videos(raw, columns.videos, media_dir), "image": [], "audio": []}
    found: dict[MediumKind, list[Video]] = {
        "video": read_videos(raw, columns.videos, media_dir, may_be_none=True),
        "image": read_files(raw, columns.images, media_dir, what="image") if columns.images else [],
        "audio": read_files(raw, columns.audios, media_dir, what="sound") if columns.audios else [],
    }
    named = {"video": columns.videos, "image": columns.images or "images", "audio": columns.audios or "audios"}
    for kind, path in _in_parts(raw, info):
        column = named[kind]
        if not is_missing(raw.get(column)) and raw[column] not in ([], "[]"):
            raise RowError(f"{column} and the parts of a turn both name a path: expected one of them")
        found[kind].append(_resolved(_path_of(path, path, f"a part of type {kind}"), "a part of a turn", media_dir))
    return found


def medium_of_part(part: Mapping[str, Any]) -> tuple[MediumKind, Any] | None:
    """The kind of the medium that a part of a content is, and its path where it has one; null of another part."""
    kind = _KINDS.get(str(part.get("type")))
    if kind is None:
        return None
    given = {key: value for key, value in part.items() if key != "type"}
    if not given:
        return kind, None
    (key, value), *more = given.items()
    if more or key not in (part["type"], kind, f"{kind}_url", *_PLACES):
        return None
    return kind, _inside(value)


def _inside(value: Any) -> Any:
    """The path in a part's object, as OpenAI has it; anything else as it is.

    Raises:
        RowError: the sound itself stands there, as base64.
    """
    if not isinstance(value, dict):
        return value
    if "data" in value and value["data"] is not None:
        raise RowError("input_audio holds the sound itself (data): write it to a file, and name its path as audio")
    return value.get("url") if set(value) <= {"url", "detail"} else value


def read_files(raw: Mapping[str, Any], column: str, media_dir: str, *, what: str) -> list[Video]:
    """The images or sounds of a row as absolute paths or s3:// URIs; none where it names none.

    `what` is what messages call one.

    Raises:
        RowError: one cannot be read from here.
    """
    value = raw.get(column)
    if is_missing(value) or value == []:
        return []
    files: list[Video] = []
    for entry in as_list(value):
        if isinstance(entry, list):
            raise RowError(f"{column} = {shown(value)}: expected the path of each {what}", kind=f"{column} list")
        files.append(_resolved(_path_of(entry, value, column), column, media_dir))
    return files


def read_videos(raw: Mapping[str, Any], column: str, media_dir: str, *, may_be_none: bool = False) -> list[Video]:
    """The videos of a row as absolute paths or s3:// URIs; a tuple holds the frame images of one.

    Raises:
        RowError: the row names one that cannot be read from here, or none, unless there `may_be_none`.
    """
    value = raw.get(column)
    if is_missing(value) or value == []:
        if may_be_none:
            return []
        raise RowError(
            f"{column} is missing: expected the path of a video, or a list with one{offered(raw, 'videos', column)}"
        )
    videos: list[Video] = []
    for entry in as_list(value):
        images = entry if isinstance(entry, list) else [entry]
        paths = tuple(_resolved(_path_of(image, value, column), column, media_dir) for image in images)
        if not paths:
            raise _no_paths(value, column)
        videos.append(paths if isinstance(entry, list) else paths[0])
    return videos


def group_of_video(video: Video) -> str:
    """UCF101's `v_Name_gNN_cMM` → `v_Name_gNN`; else the video, so that its clips stay together."""
    if isinstance(video, tuple):
        return video[0].rpartition("/")[0]
    stem = Path(video).stem
    found = _UCF_GROUP.search(stem)
    return stem[: found.end()] if found else video


def _in_parts(raw: Mapping[str, Any], info: DatasetInfo) -> Iterator[tuple[MediumKind, Any]]:
    """The media of the parts of a row's turns that have a path of their own, in their order."""
    turns = raw.get(info.columns.messages)
    for turn in as_list(turns) if info.formatting != "alpaca" and not is_missing(turns) else ():
        content = turn.get(info.tags.content_tag) if isinstance(turn, dict) else None
        for part in content if isinstance(content, list) else ():
            given = {key: value for key, value in part.items() if value is not None} if isinstance(part, dict) else {}
            found = medium_of_part(given)
            if found is not None and found[1] is not None:
                yield found


def _path_of(entry: Any, value: Any, column: str) -> str:
    if isinstance(entry, dict) and set(entry) == _AS_DATASETS_HAS_IT:
        if entry["bytes"] is not None:
            raise RowError(f"{column} holds bytes: write them to a file, and name its path")
        entry = entry["path"]
    if is_missing(entry) or not isinstance(entry, str):
        raise _no_paths(value, column)
    return entry


def _resolved(path: str, column: str, media_dir: str) -> str:
    try:
        return resolve(path, media_dir)
    except PathError as error:
        raise RowError(f"{column}: {error}", kind=f"{column} {error.kind}") from error


def _no_paths(value: Any, column: str) -> RowError:
    return RowError(f"{column} = {shown(value)}: expected paths, or lists of frame images", kind=f"{column} no path")
