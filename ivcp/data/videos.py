"""The videos that a row names, and the group that a video's name tells."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ivcp.data.paths import PathError, resolve
from ivcp.data.problems import RowError
from ivcp.data.values import as_list, is_missing, offered, shown

_AS_DATASETS_HAS_IT = {"path", "bytes"}
_UCF_GROUP = re.compile(r"_g\d+(?=_|$)")


def read_videos(
    raw: Mapping[str, Any], column: str, media_dir: str, *, may_be_none: bool = False
) -> list[str | tuple[str, ...]]:
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
    videos: list[str | tuple[str, ...]] = []
    for entry in as_list(value):
        images = entry if isinstance(entry, list) else [entry]
        paths = tuple(_resolved(_path_of(image, value, column), column, media_dir) for image in images)
        if not paths:
            raise _no_paths(value, column)
        videos.append(paths if isinstance(entry, list) else paths[0])
    return videos


def group_of_video(video: str | tuple[str, ...]) -> str:
    """UCF101's `v_Name_gNN_cMM` → `v_Name_gNN`; else the video, so that its clips stay together."""
    if isinstance(video, tuple):
        return video[0].rpartition("/")[0]
    stem = Path(video).stem
    found = _UCF_GROUP.search(stem)
    return stem[: found.end()] if found else video


def _path_of(entry: Any, value: Any, column: str) -> str:
    if isinstance(entry, dict) and set(entry) == _AS_DATASETS_HAS_IT:
        if entry["bytes"] is not None:
            raise RowError(f"{column} holds a video's bytes: write them to a file, and name its path")
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
