"""The single values of a row: what counts as missing, labels, splits, spans, groups."""

from __future__ import annotations

import difflib
import json
import math
import re
import reprlib
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ivcp.data.problems import RowError
from ivcp.records import Split

SPLIT_OF_NAME: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
    "eval": "test",
}
"""The splits by the names that people give them."""
_OTHER_NAMES = {
    "videos": ("video", "video_path", "video_file", "video_name", "path", "file", "file_name", "filename", "clip"),
    "images": ("images", "image", "image_path", "image_file", "picture", "img"),
    "audios": ("audios", "audio", "audio_path", "audio_file", "sound", "wav", "speech"),
    "action_label": ("label", "labels", "action", "class", "class_id", "class_name", "category", "target"),
    "messages": ("messages", "conversations", "conversation", "dialog", "turns"),
    "prompt": ("instruction", "prompt", "question", "query", "input"),
    "text": ("text", "content"),
    "kto_tag": ("kto_tag", "label", "tag"),
}
"""What other people call the columns of a row."""
_ESCAPED = "\\ud"
"""How `repr` begins to write half of a character."""
_LARGEST_ID = 2**63 - 1
_FLOAT = re.compile(r"[+-]?\d+\.\d*")
_NEGATIVE = re.compile(r"-\d+")
_MOST_DIGITS = 18


def is_missing(value: Any) -> bool:
    """Whether a value stands for none: null, blank text, or not a number, as tables write an empty cell."""
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or (isinstance(value, str) and value.strip() in ("", "nan", "NaN"))


def shown(value: Any) -> str:
    """A value as a message shows it, not too long."""
    return repr(value) if isinstance(value, int | float) else _SHORT.repr(value)


def offered(raw: Mapping[str, Any], setting: str, column: str) -> str:
    """What the row has instead of `column`, which it lacks, and which the registry names as `columns.<setting>`."""
    there = [str(key) for key, value in raw.items() if key != column and not is_missing(value)]
    by_lower = {key.strip().lower(): key for key in reversed(there)}
    names = (column.lower(), *_OTHER_NAMES.get(setting, ()), *difflib.get_close_matches(column.lower(), by_lower, n=1))
    instead = next((by_lower[name] for name in names if name in by_lower), None)
    if instead is None and column in raw:
        return ""
    if instead is None:
        return f"; the row has {', '.join(there) or 'nothing'}: name yours in dataset_info.json, columns.{setting}"
    return f"; the row has {instead}: rename it, or set columns.{setting} to {instead!r} in dataset_info.json"


def read_label(raw: Mapping[str, Any], column: str) -> int | str:
    """The class as it stands there, a name without spaces around it.

    Raises:
        RowError: there is none, or it is neither a class id nor a name.
    """
    label = raw.get(column)
    if is_missing(label):
        raise RowError(f"{column} is missing: expected a class id or name{offered(raw, 'action_label', column)}")
    if isinstance(label, bool) or not isinstance(label, int | str):
        hint = f"; write {int(label)}" if isinstance(label, float) and label.is_integer() else ""
        if isinstance(label, list):
            hint = "; lists of classes are for problem_type: multi_label_classification"
        raise RowError(
            f"{column} = {shown(label)}: expected a class id (a whole number from 0) or name{hint}",
            kind=f"{column} {type(label).__name__}",
        )
    return _checked_id(label, column) if isinstance(label, int) else _checked_name(label.strip(), column)


def _checked_id(label: int, column: str) -> int:
    if label < 0:
        raise RowError(f"{column} = {label}: class ids count from 0")
    if label > _LARGEST_ID:
        raise RowError(f"{column} = {shown(label)}: no class has such an id: they count from 0", kind=f"{column} large")
    return label


def _checked_name(label: str, column: str) -> str:
    if _FLOAT.fullmatch(label):
        raise RowError(
            f"{column} = {label!r}: expected a class id without a decimal point (a whole number from 0) or a name",
            kind=f"{column} float",
        )
    if _NEGATIVE.fullmatch(label):
        raise RowError(f"{column} = {label}: class ids count from 0")
    if label.isdecimal() and len(label) > _MOST_DIGITS:
        raise RowError(f"{column} = {shown(label)}: no class has such an id: they count from 0", kind=f"{column} large")
    return label


def read_split(raw: Mapping[str, Any], column: str) -> Split | None:
    """The split that a row names, in any case, or None.

    Raises:
        RowError: it names something else.
    """
    split = raw.get(column)
    if is_missing(split):
        return None
    found = SPLIT_OF_NAME.get(split.strip().lower()) if isinstance(split, str) else None
    if found is None:
        raise RowError(f"{column} = {shown(split)}: expected train, val or test")
    return found


def read_group(raw: Mapping[str, Any], column: str) -> str | None:
    """The group that a row names, or None; a number is its digits, whether a table made a float of it or not.

    Raises:
        RowError: it is neither text nor a number.
    """
    group = raw.get(column)
    if is_missing(group):
        return None
    if isinstance(group, float) and group.is_integer():
        group = int(group)
    if isinstance(group, bool) or not isinstance(group, str | int | float):
        raise RowError(f"{column} = {shown(group)}: expected text or a number", kind=f"{column} {type(group).__name__}")
    return str(group).strip()


def read_span(raw: Mapping[str, Any], start_column: str, end_column: str) -> tuple[float | None, float | None]:
    """Where the clip starts and ends in its video, in seconds; None is the video's start or end.

    Raises:
        RowError: they are no seconds, or the end is not behind the start.
    """
    start, end = (_read_seconds(raw.get(column), column) for column in (start_column, end_column))
    if (start or 0.0) < 0 or (end is not None and end <= (start or 0.0)):
        raise RowError(f"{start_column} = {start}, {end_column} = {end}: expected 0 <= start < end")
    return start, end


def _read_seconds(value: Any, column: str) -> float | None:
    if is_missing(value):
        return None
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        with suppress(ValueError, OverflowError):
            seconds = float(value)
            if math.isfinite(seconds):
                return seconds
    raise RowError(f"{column} = {shown(value)}: expected seconds")


def check_text(raw: Mapping[str, Any]) -> None:
    """Raises:
    RowError: a text of the row holds half of a character, which no file can be written with.
    """
    try:
        if _ESCAPED not in repr(raw):  # at the speed of C: most rows have none
            return
    except RecursionError:
        pass
    for key, value in raw.items():
        left = [key, value]
        while left:
            part = left.pop()
            if isinstance(part, dict):
                left += [*part.keys(), *part.values()]
            elif isinstance(part, list | tuple):
                left += part
            elif isinstance(part, str) and not part.isascii():
                _check_characters(part, key)


def _check_characters(text: str, key: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RowError(
            f"{key!a} holds \\u{ord(text[error.start]):04x} in character {error.start}, one half of a character "
            "that was cut in two: write the whole one, or remove it",
            kind=f"half of a character in {key!a}",
        ) from error


def as_list(value: Any) -> list[Any]:
    """A list stays one; text in a CSV cell may be a JSON list; anything else is one entry."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        with suppress(ValueError, RecursionError):  # a file name may begin with [ as well
            value = json.loads(value)
    return value if isinstance(value, list) else [value]


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 200
