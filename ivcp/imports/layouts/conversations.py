"""Data sets that are conversations already: LLaMA-Factory's registry entries, and files of questions and answers.

They have videos, images, sounds or several of these; media whose content stands in the rows, as `data:` URLs, become
files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from ivcp.data import registry as dataset_registry
from ivcp.data.annotations import RowReader
from ivcp.data.labels import class_id, explain_from_one, explain_similar
from ivcp.data.media import read_media, read_videos
from ivcp.data.paths import local_form
from ivcp.data.problems import AnnotationError, RowError
from ivcp.data.prompts import TAGS, media_tags
from ivcp.data.registry import REGISTRY_FILE, DatasetInfo, read_dataset_info
from ivcp.data.tables import EncodingError
from ivcp.data.turns import read_content
from ivcp.data.values import as_list, check_text, is_missing
from ivcp.imports.class_names import make_labels, read_class_names
from ivcp.imports.listing import ImportRefusedError, Reading, read_source_json
from ivcp.imports.row_media import (
    NAMES,
    InlineFiles,
    media_columns,
    paths_of,
    plain_path,
    with_parts_in_columns,
)
from ivcp.imports.rows import Built, MissingPolicy, Paths, check_missing
from ivcp.imports.tables import delimiter_of, read_rows
from ivcp.records import LABELS_FILE, Labels, MediumKind

_OPENAI_TAGS = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
_QUESTION, _ANSWER = "question", "answer"


@dataclass(frozen=True)
class _Row:
    """A row with where it stands."""

    file: Path
    number: int
    """In `file`, from 0."""
    content: Mapping[str, Any]


def build_registered(
    reading: Reading, *, labels: Labels | None, action_token: str, paths: Paths, missing: MissingPolicy
) -> Built:
    """An entry of LLaMA-Factory's `dataset_info.json`, its rows and tags as they are; the source is its folder.

    Raises:
        AnnotationError, ImportRefusedError: there is no such entry, or it cannot be used.
    """
    folder = reading.one_source(f"the folder with {REGISTRY_FILE}")
    info = read_dataset_info(reading.name, str(folder))
    rows = [row for file in dataset_registry.data_files(info, str(folder)) for row in _rows_of(file, reading)]
    if labels is None:
        named = folder / (info.labels or LABELS_FILE)
        labels = read_class_names(named).labels if info.labels or named.exists() else None
    entry = info.model_dump(mode="json", exclude_unset=True, include={"formatting", "columns", "tags", "num_samples"})
    return _build(rows, entry, reading, labels, action_token, paths, missing)


def build_questions(
    reading: Reading, *, labels: Labels | None, action_token: str, paths: Paths, missing: MissingPolicy
) -> Built:
    """Files of rows with a video and a conversation, or with a video, a question and an answer.

    Raises:
        AnnotationError, ImportRefusedError: a file cannot be read, or its rows are neither.
    """
    rows = [row for source in reading.sources for row in _rows_of(source.path, reading)]
    if not rows:
        raise ImportRefusedError(f"{reading.sources[0].path} has no rows")
    columns = dict(reading.options.columns or {})
    first = rows[0].content
    video = columns.get("videos") or next((key for key in NAMES["video"] if key in first), "videos")
    named: dict[MediumKind, str] = {"video": video}
    for kind in ("image", "audio"):
        called = columns.get(NAMES[kind][0]) or _first_used(NAMES[kind], rows)
        if called is not None:
            named[kind] = called
    entry: dict[str, Any] = {
        "formatting": "sharegpt",
        "columns": {NAMES[kind][0]: column for kind, column in named.items()} | {"messages": "conversations"},
    }
    question, answer = columns.get(_QUESTION, _QUESTION), columns.get(_ANSWER, _ANSWER)
    if columns.get("messages", "messages") in first:
        entry["columns"]["messages"] = columns.get("messages", "messages")
    elif "conversations" not in first and question in first:
        rows = list(_as_conversations(rows, question, answer, named, reading))
    elif "conversations" not in first:
        raise ImportRefusedError(
            f"{reading.sources[0].path}: expected conversations, messages, or {question} and {answer}; it has "
            f"{', '.join(first)}: name yours, e.g. --column question=Q --column answer=A"
        )
    turns = as_list(rows[0].content.get(entry["columns"]["messages"])) if rows else []
    entry["tags"] = _OPENAI_TAGS if turns and isinstance(turns[0], dict) and "role" in turns[0] else {}
    return _build(rows, {k: v for k, v in entry.items() if v}, reading, labels, action_token, paths, missing)


def _first_used(names: Sequence[str], rows: Sequence[_Row]) -> str | None:
    """The first of several names of a column that some row has."""
    return next((name for name in names if any(name in row.content for row in rows)), None)


def _rows_of(file: Path, reading: Reading) -> Iterator[_Row]:
    rows = dataset_registry.read_rows(file, delimiter=delimiter_of(reading), encoding=reading.options.encoding)
    try:
        yield from (_Row(file, number, row) for number, row in enumerate(rows))
    except AnnotationError as error:
        if isinstance(error.__cause__, EncodingError):
            raise ImportRefusedError(f"{error}; or name its encoding, e.g. --encoding gbk") from error
        raise


def _as_conversations(
    rows: Iterable[_Row], question: str, answer: str, named: Mapping[MediumKind, str], reading: Reading
) -> Iterator[_Row]:
    """Rows with a question as conversations, whose user shows the media of the columns `named`."""
    for row in rows:
        content = row.content
        with reading.problems.collected(reading.name, row.file, row.number):
            asked = read_content(content.get(question), question)
            shown = [TAGS[kind] * len(paths_of(content, column)) for kind, column in named.items()]
            turns = [{"from": "human", "value": asked if media_tags(asked) else "".join((*shown, asked))}]
            if not is_missing(content.get(answer)):
                turns.append({"from": "gpt", "value": read_content(content[answer], answer)})
            kept = {key: value for key, value in content.items() if key not in (question, answer)}
            yield replace(row, content={"conversations": turns} | kept)


def _build(
    rows: Sequence[_Row],
    entry: dict[str, Any],
    reading: Reading,
    labels: Labels | None,
    action_token: str,
    paths: Paths,
    missing: MissingPolicy,
) -> Built:
    info, file = _info_of(entry), reading.sources[0].path
    inline = InlineFiles(paths.dataset_dir / reading.name / "media")
    in_parts: set[MediumKind] = set()
    rows = list(_with_plain_paths(rows, info, inline, in_parts, reading))
    for kind in sorted(in_parts - media_columns(info).keys()):
        entry = {**entry, "columns": {**entry.get("columns", {}), NAMES[kind][0]: NAMES[kind][0]}}
    info = _info_of(entry)
    columns = media_columns(info).values()
    if rows and not any(column in row.content for row in rows for column in columns):
        raise ImportRefusedError(
            f"{file}: no row has {' or '.join(columns)}: a data set without videos, images and sounds cannot be used"
        )
    if reading.options.label_map:
        rows = _labelled(rows, info, reading, reading.options.label_map, action_token)
    has_labels = any(info.columns.action_label in row.content for row in rows)
    kept = _sound_rows(rows, info, reading, action_token) if has_labels else _askable(rows, info, reading)
    written, num_missing = _with_paths(kept, info, inline, reading, paths, missing)
    if has_labels:
        labels, notes = _classes(written, info, labels, file)
        return Built(written, labels, entry, notes, num_missing, inline.contents)
    note = (
        "no row has a class: this is question answering, kept as conversations for language training. To classify "
        "with it, give each video a class with --label-map"
    )
    return Built(written, None, entry, (note,), num_missing, inline.contents)


def _info_of(entry: Mapping[str, Any]) -> DatasetInfo:
    return DatasetInfo.model_validate({"file_name": "annotations.json", **entry})


def _classes(
    rows: Iterable[Mapping[str, Any]], info: DatasetInfo, labels: Labels | None, file: Path
) -> tuple[Labels | None, tuple[str, ...]]:
    """The classes, None where rows have ids only, and what the user should know of them."""
    found = {str(row[info.columns.action_label]) for row in rows}
    ids = {number for number in map(class_id, found) if number is not None}
    if labels is None and len(ids) < len(found):
        labels = make_labels(sorted(found), "the rows")
    from_one = explain_from_one(ids, labels.num_classes) if labels and len(ids) == len(found) else None
    if from_one:
        raise ImportRefusedError(f"{file}: {from_one}")
    similar = explain_similar(labels.label_names) if labels else None
    return labels, (similar,) if similar else ()


def _with_plain_paths(
    rows: Iterable[_Row], info: DatasetInfo, inline: InlineFiles, in_parts: set[MediumKind], reading: Reading
) -> Iterator[_Row]:
    """The rows with their media as paths in columns; notes what kinds the parts of turns had paths of."""
    for row in rows:
        with reading.problems.collected(reading.name, row.file, row.number):
            content = with_parts_in_columns(row.content, info, in_parts.add)
            for column in {*media_columns(info).values(), *(names[0] for names in NAMES.values())} & content.keys():
                if paths := paths_of(content, column):
                    content[column] = [
                        [plain_path(path, inline, reading.videos) for path in entry]
                        if isinstance(entry, list)
                        else plain_path(entry, inline, reading.videos)
                        for entry in paths
                    ]
            yield replace(row, content=content)


def _sound_rows(
    rows: Sequence[_Row], info: DatasetInfo, reading: Reading, action_token: str
) -> list[Mapping[str, Any]]:
    """The rows that a run would read, as `ivcp.data.annotations` judges them."""
    reader = RowReader(reading.name, info, reading.videos.root, action_token, reading.problems)
    kept: list[Mapping[str, Any]] = []
    for row in rows:
        before = len(reading.problems)
        read = reader.read(row.content, row.file, row.number, row.number)
        with reading.problems.collected(reading.name, row.file, row.number):
            _check_writable(row.content)
        if read is not None and len(reading.problems) == before:
            kept.append({**row.content, info.columns.action_label: read.label})
    return kept


def _askable(rows: Sequence[_Row], info: DatasetInfo, reading: Reading) -> list[Mapping[str, Any]]:
    """The rows that have a conversation, and a video, an image or a sound."""
    needed = info.columns.prompt if info.formatting == "alpaca" else info.columns.messages
    kept: list[Mapping[str, Any]] = []
    for row in rows:
        with reading.problems.collected(reading.name, row.file, row.number):
            if is_missing(row.content.get(needed)) or row.content[needed] == []:
                raise RowError(f"no {needed}")
            if not any(read_media(row.content, info, reading.videos.root, rows="conversations").values()):
                read_videos(row.content, info.columns.videos, reading.videos.root)
            check_text(row.content)
            _check_writable(row.content)
            kept.append(row.content)
    return kept


def _check_writable(row: Mapping[str, Any]) -> None:
    for key, value in row.items():
        try:
            json.dumps(value)
        except (TypeError, ValueError, RecursionError) as error:
            raise RowError(f"{key} cannot be written as JSON ({error}): leave it out", kind=f"{key} JSON") from error


def _with_paths(
    rows: Sequence[Mapping[str, Any]],
    info: DatasetInfo,
    inline: InlineFiles,
    reading: Reading,
    paths: Paths,
    missing: MissingPolicy,
) -> tuple[list[dict[str, Any]], int]:
    """The rows with their media where they lie now, and how many rows have some that are absent."""
    written, absent, total, columns = [], [], 0, media_columns(info)
    for row in rows:
        listed = {column: paths_of(row, column) for column in columns.values() if column in row}
        entries = [entry for found in listed.values() for entry in found]
        flat = [path for entry in entries for path in (entry if isinstance(entry, list) else [entry])]
        there = {path: path if path in inline.contents else reading.videos.find(local_form(path)) for path in flat}
        gone = [path for path, found in there.items() if found is None]
        total += 1
        absent += gone[:1]
        if gone and missing == "skip":
            continue
        names = {
            path: paths.own(path) if path in inline.contents else paths.written(found or local_form(path))
            for path, found in there.items()
        }
        placed = {
            column: [[names[p] for p in entry] if isinstance(entry, list) else names[entry] for entry in found]
            for column, found in listed.items()
        }
        written.append({**row, **placed})
    what = " and ".join(f"{kind}s" for kind in columns) if len(columns) < 3 else "videos, images and sounds"
    check_missing(absent, total, missing, reading.videos, what=what)
    return written, len(absent)


def _labelled(rows: Sequence[_Row], info: DatasetInfo, reading: Reading, file: Path, action_token: str) -> list[_Row]:
    """The rows with a class each, and with the action token at the end of the user's last turn."""
    label_of = _read_label_map(file, reading)
    named, without = [], 0
    for row in rows:
        videos = as_list(row.content.get(info.columns.videos))
        path = str(videos[0]) if videos else ""
        label = next((label_of[key] for key in _names_of(path) if key in label_of), None)
        if label is None:
            without += 1
            reading.problem(row.file, row.number, f"its video has no class in {file}")
        else:
            content = _with_token(row.content, info, action_token) | {info.columns.action_label: label}
            named.append(replace(row, content=content))
    if without == len(rows):
        raise ImportRefusedError(f"{file}: none of its {len(label_of)} names is a video of {reading.sources[0].path}")
    return named


def _names_of(path: str) -> tuple[str, ...]:
    pure = PurePosixPath(path)
    return path, pure.name, pure.stem


def _read_label_map(file: Path, reading: Reading) -> Mapping[str, str | int]:
    if file.suffix != ".json":
        label_of: dict[str, str | int] = {}
        for row in read_rows(file, reading, needed=("path", "label"), optional=()):
            if label_of.setdefault(row["path"], row["label"]) != row["label"]:
                raise ImportRefusedError(f"{file}: {row['path']} stands there twice, with several labels")
        return label_of
    content = read_source_json(file)
    if not isinstance(content, dict) or not all(isinstance(label, str | int) for label in content.values()):
        raise ImportRefusedError(f"{file}: expected an object with a class for each video")
    return content


def _with_token(row: Mapping[str, Any], info: DatasetInfo, action_token: str) -> dict[str, Any]:
    """The row with the token after the user's last words, where it has none; what is no conversation stays as it is."""
    if info.formatting == "alpaca":
        key = info.columns.query if not is_missing(row.get(info.columns.query)) else info.columns.prompt
        is_text = isinstance(row.get(key), str) and action_token not in str(row)
        return {**row, key: f"{row[key]}{action_token}"} if is_text else dict(row)
    column, tags = info.columns.messages, info.tags
    turns = [dict(turn) for turn in as_list(row.get(column)) if isinstance(turn, dict)]
    users = [turn for turn in turns if turn.get(tags.role_tag) == tags.user_tag]
    if not users or any(action_token in str(turn.get(tags.content_tag)) for turn in turns):
        return dict(row)
    content = users[-1].get(tags.content_tag)
    if isinstance(content, str | list):
        token = [{"type": "text", "text": action_token}] if isinstance(content, list) else action_token
        users[-1][tags.content_tag] = content + token  # type: ignore[operator]
    return {**row, column: turns}
