"""Data sets that are conversations already: LLaMA-Factory's registry entries, and files of questions and answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ivcp.data import registry as dataset_registry
from ivcp.data.annotations import RowReader, as_list
from ivcp.data.prompts import VIDEO_TAG
from ivcp.data.registry import REGISTRY_FILE, DatasetInfo, read_dataset_info
from ivcp.imports.class_names import make_labels, read_class_names
from ivcp.imports.listing import ImportRefusedError, Reading, read_source_json
from ivcp.imports.rows import Built, MissingPolicy, Paths, check_missing
from ivcp.imports.tables import read_rows
from ivcp.records import LABELS_FILE, Labels

_OPENAI_TAGS = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
_LABEL, _QUESTION, _ANSWER = "action_label", "question", "answer"


def build_registered(
    reading: Reading, *, labels: Labels | None, action_token: str, paths: Paths, missing: MissingPolicy
) -> Built:
    """An entry of LLaMA-Factory's `dataset_info.json`, its rows and tags as they are; the source is its folder.

    Raises:
        AnnotationError, ImportRefusedError: there is no such entry, or it cannot be used.
    """
    folder = reading.one_source(f"the folder with {REGISTRY_FILE}")
    info = read_dataset_info(reading.name, str(folder))
    rows = [row for file in dataset_registry.data_files(info, str(folder)) for row in dataset_registry.read_rows(file)]
    if labels is None:
        named = folder / (info.labels or LABELS_FILE)
        labels = read_class_names(named) if info.labels or named.exists() else None
    entry = info.model_dump(mode="json", exclude_unset=True, include={"formatting", "columns", "tags", "num_samples"})
    return _build(rows, entry, reading, labels, action_token, paths, missing)


def build_questions(
    reading: Reading, *, labels: Labels | None, action_token: str, paths: Paths, missing: MissingPolicy
) -> Built:
    """Files of rows with a video and a conversation, or with a video, a question and an answer.

    Raises:
        ImportRefusedError: the rows are neither.
    """
    rows = [row for source in reading.sources for row in dataset_registry.read_rows(source.path)]
    if not rows:
        raise ImportRefusedError(f"{reading.sources[0].path} has no rows")
    columns = dict(reading.options.columns or {})
    first = rows[0]
    video = columns.get("videos") or next((key for key in ("videos", "video", "path") if key in first), "videos")
    entry: dict[str, Any] = {"formatting": "sharegpt", "columns": {"videos": video, "messages": "conversations"}}
    question, answer = columns.get(_QUESTION, _QUESTION), columns.get(_ANSWER, _ANSWER)
    if columns.get("messages", "messages") in first:
        entry["columns"]["messages"] = columns.get("messages", "messages")
    elif "conversations" not in first and question in first:
        rows = [_as_conversation(row, question, answer) for row in rows]
    elif "conversations" not in first:
        raise ImportRefusedError(
            f"{reading.sources[0].path}: expected conversations, messages, or {question} and {answer}; it has "
            f"{', '.join(first)}: name yours, e.g. --column question=Q --column answer=A"
        )
    turns = rows[0].get(entry["columns"]["messages"]) or [{}]
    entry["tags"] = _OPENAI_TAGS if "role" in turns[0] else {}
    return _build(rows, {k: v for k, v in entry.items() if v}, reading, labels, action_token, paths, missing)


def _as_conversation(row: Mapping[str, Any], question: str, answer: str) -> dict[str, Any]:
    asked = str(row.get(question, ""))
    turns = [
        {"from": "human", "value": asked if VIDEO_TAG in asked else VIDEO_TAG + asked},
        {"from": "gpt", "value": str(row.get(answer, ""))},
    ]
    return {"conversations": turns} | {key: value for key, value in row.items() if key not in (question, answer)}


def _build(
    rows: Sequence[Mapping[str, Any]],
    entry: dict[str, Any],
    reading: Reading,
    labels: Labels | None,
    action_token: str,
    paths: Paths,
    missing: MissingPolicy,
) -> Built:
    info = DatasetInfo.model_validate({"file_name": "annotations.json", **entry})
    file = reading.sources[0].path
    if not any(info.columns.videos in row for row in rows):
        raise ImportRefusedError(f"{file}: no row has {info.columns.videos}: a data set without videos cannot be used")
    if reading.options.label_map:
        rows = _labelled(rows, info, reading, reading.options.label_map, action_token)
    has_labels = any(info.columns.action_label in row for row in rows)
    kept = _sound_rows(rows, entry, reading, action_token) if has_labels else _askable(rows, info, reading)
    written, num_missing = _with_paths(kept, info, reading, paths, missing)
    if has_labels:
        return Built(written, labels or _labels_of(written, info), entry, num_missing=num_missing)
    note = (
        "no row has a class: this is question answering, kept as conversations for language training. To classify "
        "with it, give each video a class with --label-map"
    )
    return Built(written, None, entry, (note,), num_missing)


def _labels_of(rows: Iterable[Mapping[str, Any]], info: DatasetInfo) -> Labels | None:
    found = {str(row[info.columns.action_label]) for row in rows}
    return None if all(name.isdecimal() for name in found) else make_labels(sorted(found), "the rows")


def _sound_rows(
    rows: Sequence[Mapping[str, Any]], entry: Mapping[str, Any], reading: Reading, action_token: str
) -> list[Mapping[str, Any]]:
    """The rows that a run would read, as `ivcp.data.annotations` judges them."""
    info = DatasetInfo.model_validate({"file_name": "annotations.json", **entry})
    reader = RowReader(reading.name, info, reading.videos.root, action_token, reading.problems)
    file = reading.sources[0].path
    return [row for number, row in enumerate(rows) if reader.read(row, file, number, number) is not None]


def _askable(rows: Sequence[Mapping[str, Any]], info: DatasetInfo, reading: Reading) -> list[Mapping[str, Any]]:
    """The rows that have a conversation and a video."""
    alpaca = info.formatting == "alpaca"
    needed = (info.columns.videos, info.columns.prompt if alpaca else info.columns.messages)
    kept = []
    for number, row in enumerate(rows):
        absent = [key for key in needed if not row.get(key)]
        if absent:
            reading.problem(reading.sources[0].path, number, f"no {' and no '.join(absent)}")
        else:
            kept.append(row)
    return kept


def _with_paths(
    rows: Sequence[Mapping[str, Any]], info: DatasetInfo, reading: Reading, paths: Paths, missing: MissingPolicy
) -> tuple[list[dict[str, Any]], int]:
    """The rows with their videos where they lie now, and how many of them are absent."""
    column = info.columns.videos
    written, absent, total = [], [], 0
    for row in rows:
        listed = _videos_of(row, column)
        flat = [path for entry in listed for path in (entry if isinstance(entry, list) else [entry])]
        found = {path: reading.videos.find(path) for path in flat}
        gone = [path for path, there in found.items() if there is None]
        total += 1
        absent += gone[:1]
        if gone and missing == "skip":
            continue
        names = {path: paths.written(there or path) for path, there in found.items()}
        placed = [[names[p] for p in entry] if isinstance(entry, list) else names[entry] for entry in listed]
        written.append({**row, column: placed})
    check_missing(absent, total, missing, reading.videos)
    return written, len(absent)


def _videos_of(row: Mapping[str, Any], column: str) -> list[str | list[str]]:
    """The videos of a row: one path, a list of them (in a CSV cell as JSON), each perhaps a list of frame images."""
    return as_list(row.get(column) or [])


def _labelled(
    rows: Sequence[Mapping[str, Any]], info: DatasetInfo, reading: Reading, file: Path, action_token: str
) -> list[dict[str, Any]]:
    """The rows with a class each, and with the action token at the end of the user's last turn."""
    label_of = _read_label_map(file, reading)
    named, without = [], 0
    for number, row in enumerate(rows):
        videos = _videos_of(row, info.columns.videos)
        path = str(videos[0]) if videos else ""
        label = next((label_of[key] for key in _names_of(path) if key in label_of), None)
        if label is None:
            without += 1
            reading.problem(reading.sources[0].path, number, f"its video has no class in {file}")
        else:
            named.append(_with_token(row, info, action_token) | {info.columns.action_label: label})
    if without == len(rows):
        raise ImportRefusedError(f"{file}: none of its {len(label_of)} names is a video of {reading.sources[0].path}")
    return named


def _names_of(path: str) -> tuple[str, ...]:
    pure = PurePosixPath(path)
    return path, pure.name, pure.stem


def _read_label_map(file: Path, reading: Reading) -> dict[str, str | int]:
    if file.suffix != ".json":
        return {row["path"]: row["label"] for row in read_rows(file, reading, needed=("path", "label"), optional=())}
    content = read_source_json(file)
    if not isinstance(content, dict) or not all(isinstance(label, str | int) for label in content.values()):
        raise ImportRefusedError(f"{file}: expected an object with a class for each video")
    return content


def _with_token(row: Mapping[str, Any], info: DatasetInfo, action_token: str) -> dict[str, Any]:
    """The row with the token after the user's last words, where it has none."""
    if info.formatting == "alpaca":
        key = info.columns.query if row.get(info.columns.query) else info.columns.prompt
        return dict(row) if action_token in str(row) else {**row, key: f"{row[key]}{action_token}"}
    column, tags = info.columns.messages, info.tags
    turns = [dict(turn) for turn in row.get(column, [])]
    users = [turn for turn in turns if turn.get(tags.role_tag) == tags.user_tag]
    if users and not any(action_token in str(turn.get(tags.content_tag)) for turn in turns):
        users[-1][tags.content_tag] = f"{users[-1][tags.content_tag]}{action_token}"
    return {**row, column: turns}
