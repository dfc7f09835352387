"""Rows of annotation files → typed rows. All that is wrong with them is collected and reported at once."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ivcp import storage
from ivcp.data.prompts import PromptError, check_prompt
from ivcp.data.registry import AnnotationError, DatasetInfo, Tags, data_files, read_rows
from ivcp.records import Message, Split

__all__ = ["SPLIT_OF_NAME", "AnnotatedRow", "AnnotationError", "Problems", "RowReader", "as_list", "read_dataset"]

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
_UCF_GROUP = re.compile(r"_g\d+(?=_|$)")
_OTHER_TOKEN = re.compile(r"<[A-Z_]{3,}>")
_MOST_PROBLEMS = 20
_MOST_ROWS = 5


@dataclass(frozen=True)
class AnnotatedRow:
    """One row of a data set, before its video was looked at."""

    dataset: str
    file: Path
    row: int
    """Row in the data set, from 0."""
    row_in_file: int
    """Row in its file, from 0: another number where the data set has several files."""
    video: str | tuple[str, ...]
    messages: tuple[Message, ...]
    label: int | str
    """The class as it stands there: an id or a name."""
    group: str
    split: Split | None
    """The split that the row itself names."""
    start_seconds: float | None
    end_seconds: float | None

    @property
    def clip_id(self) -> str:
        """`<data set>:<row>`."""
        return f"{self.dataset}:{self.row}"


class RowError(ValueError):
    """What is wrong with one row; the message does not say which row it is."""


class Problems:
    """Collects what is wrong with rows, to say all of it at once."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], list[int]] = {}

    def __len__(self) -> int:
        return sum(len(rows) for rows in self._rows.values())

    def add(self, dataset: str, file: Path, row: int, message: str) -> None:
        """Notes a problem of one row of a file."""
        self._rows.setdefault((f"data set {dataset} ({file})", message), []).append(row)

    @contextmanager
    def collected(self, dataset: str, file: Path, row: int) -> Iterator[None]:
        """Notes the `RowError` or `PromptError` that its block raises."""
        try:
            yield
        except (RowError, PromptError) as error:
            self.add(dataset, file, row, str(error))

    def raise_if_any(self) -> None:
        """Raises:
        AnnotationError: there are problems; the message has one line per kind, most frequent first.
        """
        if not self._rows:
            return
        kinds = sorted(self._rows.items(), key=lambda item: -len(item[1]))
        lines = [f"  {where} {_name_rows(rows)}: {message}" for (where, message), rows in kinds[:_MOST_PROBLEMS]]
        left_out = len(kinds) - _MOST_PROBLEMS
        if left_out > 0:
            lines.append(
                f"  and {sum(len(rows) for _, rows in kinds[_MOST_PROBLEMS:])} problems of {left_out} more kinds"
            )
        raise AnnotationError(f"{len(self)} problem(s) in the annotations:\n" + "\n".join(lines))


def read_dataset(
    name: str, info: DatasetInfo, *, dataset_dir: str, media_dir: str | None, action_token: str, problems: Problems
) -> Iterator[AnnotatedRow]:
    """The rows of a data set that are sound, one by one; what is wrong with the others goes to `problems`.

    Raises:
        AnnotationError: the data set as a whole cannot be used: its files cannot be read, it has no rows, or no
            row has a label.
    """
    files = data_files(info, dataset_dir)
    raw_rows = ((file, number, raw) for file in files for number, raw in enumerate(read_rows(file)))
    named = f"data set {name} ({', '.join(str(file) for file in files)})"
    reader = RowReader(name, info, media_dir or dataset_dir, action_token, problems)
    num_rows = num_labels = 0
    first: Mapping[str, Any] = {}
    for file, number, raw in raw_rows:
        first = first or raw
        row = reader.read(raw, file, num_rows, number)
        num_rows += 1
        num_labels += info.columns.action_label in raw
        if row is not None:
            yield row
    if not num_rows:
        raise AnnotationError(f"{named} is empty: expected at least one row")
    if not num_labels:
        raise AnnotationError(_explain_without_labels(named, info, num_rows, first))


def _explain_without_labels(named: str, info: DatasetInfo, num_rows: int, first: Mapping[str, Any]) -> str:
    column = info.columns.action_label
    return (
        f"{named}: none of its {num_rows} rows has {column} (the first has {', '.join(first)}). This is video question "
        f"answering without labels and cannot be used for stage: action_cls. Give every row {column}, a class id or "
        "name, and the action token; or name the column that holds it in dataset_info.json: columns.action_label; "
        "or import it again with a class for each video: ivcp import questions --label-map"
    )


@dataclass(frozen=True)
class RowReader:
    """Reads the rows of one data set."""

    dataset: str
    info: DatasetInfo
    media_dir: str
    action_token: str
    problems: Problems

    def read(self, raw: Mapping[str, Any], file: Path, row: int, row_in_file: int) -> AnnotatedRow | None:
        """One row, or None with its problems noted."""
        columns, before, where = self.info.columns, len(self.problems), (self.dataset, file, row_in_file)
        with self.problems.collected(*where):
            videos = read_videos(raw, columns.videos, self.media_dir)
            messages = _read_messages(raw, self.info)
            _check_conversation(messages, self.action_token, num_videos=len(videos))
        with self.problems.collected(*where):
            label = _read_label(raw, columns.action_label)
        with self.problems.collected(*where):
            split = _read_split(raw, columns.split)
            start, end = _read_span(raw, columns.start_seconds, columns.end_seconds)
        if len(self.problems) > before:
            return None
        group = raw.get(columns.group)
        return AnnotatedRow(
            dataset=self.dataset,
            file=file,
            row=row,
            row_in_file=row_in_file,
            video=videos[0],
            messages=messages,
            label=label,
            group=str(group) if group not in (None, "") else _group_of_video(videos[0]),
            split=split,
            start_seconds=start,
            end_seconds=end,
        )


def _check_conversation(messages: Sequence[Message], action_token: str, *, num_videos: int) -> None:
    try:
        check_prompt(messages, action_token=action_token, num_videos=num_videos)
    except PromptError as error:
        text = "".join(message.content for message in messages)
        others = sorted(set(_OTHER_TOKEN.findall(text)) - {action_token})
        if action_token in text or not others:
            raise
        raise RowError(f"{error}; it has {', '.join(others)}: if that is the token, set action_token") from error
    if num_videos != 1:
        raise RowError(f"{num_videos} videos: a sample is classified from exactly one")


def _read_messages(raw: Mapping[str, Any], info: DatasetInfo) -> tuple[Message, ...]:
    columns = info.columns
    needed = columns.prompt if info.formatting == "alpaca" else columns.messages
    if needed not in raw:
        other = "messages" if info.formatting != "alpaca" else "prompt"
        raise RowError(
            f"key {needed!r} expected (formatting: {info.formatting}), the row has {', '.join(raw)}: "
            f"set formatting and columns.{other} in dataset_info.json"
        )
    system = raw.get(columns.system)
    start = (Message(role="system", content=str(system)),) if system else ()
    if info.formatting == "alpaca":
        return start + _read_alpaca(raw, info)
    turns = as_list(raw[needed])
    if not turns:
        raise RowError(f"{needed} is empty: expected a list of turns")
    return start + tuple(_read_turn(turn, info.tags) for turn in turns)


def _read_alpaca(raw: Mapping[str, Any], info: DatasetInfo) -> tuple[Message, ...]:
    columns = info.columns
    asked = "\n".join(str(raw[key]) for key in (columns.prompt, columns.query) if raw.get(key))
    pairs = [*as_list(raw.get(columns.history) or []), (asked, raw.get(columns.response))]
    turns: list[Message] = []
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise RowError(f"{columns.history} = {pair!r}: expected pairs of a question and an answer")
        turns.append(Message(role="user", content=str(pair[0])))
        if pair[1]:
            turns.append(Message(role="assistant", content=str(pair[1])))
    return tuple(turns)


def _read_turn(turn: Any, tags: Tags) -> Message:
    if not isinstance(turn, dict) or tags.role_tag not in turn or tags.content_tag not in turn:
        came = f"keys {', '.join(map(repr, turn))}" if isinstance(turn, dict) else repr(turn)
        raise RowError(
            f"turns with the keys {tags.role_tag!r} and {tags.content_tag!r} expected, {came} came: "
            "set tags.role_tag and tags.content_tag in dataset_info.json"
        )
    role, content = turn[tags.role_tag], turn[tags.content_tag]
    if role == tags.user_tag:
        return Message(role="user", content=str(content))
    if role == tags.assistant_tag:
        return Message(role="assistant", content=str(content))
    if role == tags.system_tag:
        return Message(role="system", content=str(content))
    if role in (tags.observation_tag, tags.function_tag):
        raise RowError(f"{tags.role_tag} = {role!r}: turns of tools have no meaning for a clip: leave them out")
    raise RowError(
        f"{tags.role_tag} = {role!r}: expected {tags.user_tag!r}, {tags.assistant_tag!r} or {tags.system_tag!r}: "
        "set tags.user_tag and tags.assistant_tag in dataset_info.json"
    )


def read_videos(raw: Mapping[str, Any], column: str, media_dir: str) -> list[str | tuple[str, ...]]:
    """The videos of a row as absolute paths or s3:// URIs; a tuple holds the frame images of one.

    Raises:
        RowError: the row names none.
    """
    value = raw.get(column)
    if not value:
        raise RowError(f"{column} is missing: expected the path of a video, or a list with one")
    videos: list[str | tuple[str, ...]] = []
    for entry in as_list(value):
        images = entry if isinstance(entry, list) else [entry]
        if not images or not all(isinstance(path, str) and path for path in images):
            raise RowError(f"{column} = {value!r}: expected paths, or lists of frame images")
        paths = tuple(_resolve(path, media_dir) for path in images)
        videos.append(paths if isinstance(entry, list) else paths[0])
    return videos


def _resolve(path: str, media_dir: str) -> str:
    if path.startswith("s3://") or Path(path).is_absolute():
        return path
    return storage.join(media_dir if media_dir.startswith("s3://") else str(Path(media_dir).absolute()), path)


def _read_label(raw: Mapping[str, Any], column: str) -> int | str:
    label = raw.get(column)
    if label is None or label == "":
        raise RowError(f"{column} is missing: expected a class id or name")
    if isinstance(label, bool) or not isinstance(label, int | str):
        raise RowError(f"{column} = {label!r}: expected a class id (a whole number from 0) or name")
    if isinstance(label, int) and label < 0:
        raise RowError(f"{column} = {label}: class ids count from 0")
    return label


def _read_split(raw: Mapping[str, Any], column: str) -> Split | None:
    split = raw.get(column)
    if split in (None, ""):
        return None
    if split not in SPLIT_OF_NAME:
        raise RowError(f"{column} = {split!r}: expected train, val or test")
    return SPLIT_OF_NAME[split]


def _read_span(raw: Mapping[str, Any], *columns: str) -> tuple[float | None, float | None]:
    values = []
    for column in columns:
        value = raw.get(column)
        try:
            values.append(None if value in (None, "") else float(value))
        except (TypeError, ValueError) as error:
            raise RowError(f"{column} = {value!r}: expected seconds") from error
    start, end = values
    if (start or 0.0) < 0 or (end is not None and end <= (start or 0.0)):
        raise RowError(f"{columns[0]} = {start}, {columns[1]} = {end}: expected 0 <= start < end")
    return start, end


def _group_of_video(video: str | tuple[str, ...]) -> str:
    """UCF101's `v_Name_gNN_cMM` → `v_Name_gNN`; else the video, so that its clips stay together."""
    if isinstance(video, tuple):
        return video[0].rpartition("/")[0]
    stem = Path(video).stem
    found = _UCF_GROUP.search(stem)
    return stem[: found.end()] if found else video


def as_list(value: Any) -> list[Any]:
    """A list stays one; text in a CSV cell may be a JSON list; anything else is one entry."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        with suppress(json.JSONDecodeError):  # a file name may begin with [ as well
            value = json.loads(value)
    return value if isinstance(value, list) else [value]


def _name_rows(rows: Sequence[int]) -> str:
    shown = ", ".join(str(row) for row in rows[:_MOST_ROWS])
    more = f" and {len(rows) - _MOST_ROWS} more" if len(rows) > _MOST_ROWS else ""
    return f"row{'s' if len(rows) > 1 else ''} {shown}{more}"
