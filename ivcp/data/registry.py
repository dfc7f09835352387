"""`dataset_info.json`, LLaMA-Factory's registry of data sets: which files hold the rows, and under which keys.

Keys and defaults are those of LLaMA-Factory's `data/README.md`; the columns `action_label`, `group`, `split`,
`start_seconds` and `end_seconds` and the key `labels` are additions.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from ivcp import storage
from ivcp.data import tables
from ivcp.data.paths import PathError, resolve
from ivcp.data.problems import AnnotationError
from ivcp.records import Record, RowKind

__all__ = [
    "REGISTRY_FILE",
    "AnnotationError",
    "Columns",
    "DatasetInfo",
    "Tags",
    "data_files",
    "read_dataset_info",
    "read_described",
    "read_registry",
    "read_rows",
]

REGISTRY_FILE = "dataset_info.json"
_SPLIT_NAMES = ("train", "test", "val", "validation", "valid", "dev", "eval")
_WORKBOOKS = (".xlsx", ".xls", ".ods")
_USED: dict[RowKind, str] = {
    "conversations": "stage: sft, grpo and ppo read conversations with their answers, and neither pairs nor tags",
    "pairs": "stage: dpo and rm read pairs: ranking: true, with columns.chosen and columns.rejected",
    "tags": "stage: kto reads conversations with columns.kto_tag, true for a good answer and false for a bad one",
    "texts": 'stage: pt reads texts without turns: formatting: alpaca with columns: {"prompt": "text"}',
}
"""What is used by the stages that read each kind of rows, for messages."""
_NOT_READ = ("hf_hub_url", "ms_hub_url", "om_hub_url", "script_url")


class Columns(Record):
    """Which key of a row holds what."""

    messages: str = "conversations"
    videos: str = "videos"
    system: str = "system"
    prompt: str = "instruction"
    query: str = "input"
    response: str = "output"
    history: str = "history"
    action_label: str = "action_label"
    """The class: an id, counted from 0, or a name."""
    group: str = "group"
    """Rows of one group (one source video, one person) stay in one split."""
    split: str = "split"
    """train, val or test, for rows that are split already."""
    start_seconds: str = "start_seconds"
    end_seconds: str = "end_seconds"
    tools: str | None = None
    images: str | None = None
    audios: str | None = None
    chosen: str | None = None
    rejected: str | None = None
    kto_tag: str | None = None


class Tags(Record):
    """Which keys a turn has, and what its speakers are called."""

    role_tag: str = "from"
    content_tag: str = "value"
    user_tag: str = "human"
    assistant_tag: str = "gpt"
    system_tag: str = "system"
    observation_tag: str = "observation"
    function_tag: str = "function_call"


_OPENAI_TAGS = Tags(
    role_tag="role", content_tag="content", user_tag="user", assistant_tag="assistant", observation_tag="tool"
)


class DatasetInfo(Record):
    """One entry of the registry."""

    file_name: str | None = None
    """A JSON, JSON Lines, CSV, TSV, Parquet or Arrow file below `dataset_dir`, or a folder of them; text may be .gz."""
    cloud_file_name: str | None = None
    """The same as an s3:// URI."""
    hf_hub_url: str | None = None
    ms_hub_url: str | None = None
    om_hub_url: str | None = None
    script_url: str | None = None
    formatting: Literal["alpaca", "sharegpt", "openai"] = "alpaca"
    ranking: bool = False
    folder: str | None = None
    """Folder below `file_name`, where that is a folder."""
    subset: str | None = None
    """Folder below `folder`."""
    split: str = "train"
    """Which files of a folder are read, where their names begin with a split's name."""
    num_samples: int | None = Field(None, ge=1)
    """Use at most this many rows, chosen at random."""
    labels: str | None = None
    """Labels file below `dataset_dir`: `{"label_names": [...], "reversed_pairs": [...]}`."""
    revision: str | None = None
    columns: Columns = Columns()
    tags: Tags = Tags()

    @property
    def source(self) -> str:
        """The file, folder or URI with the rows."""
        source = self.cloud_file_name or self.file_name
        assert source is not None, "read_dataset_info checks it"
        return source


def read_dataset_info(name: str, dataset_dir: str, *, rows: RowKind = "labels") -> DatasetInfo:
    """Reads the entry `name` of the registry in `dataset_dir`, a folder or s3:// prefix, for a stage that reads `rows`.

    Raises:
        AnnotationError: there is no registry or no such entry, the entry cannot be used, or is of another kind of rows.
    """
    path = storage.join(dataset_dir, REGISTRY_FILE)
    registry = read_registry(path)
    if name not in registry:
        nearest = difflib.get_close_matches(name, registry, n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else f"it has: {', '.join(sorted(registry)[:20]) or 'no entry'}"
        raise AnnotationError(f"data set {name!r} is not in {path}; {hint}")
    try:
        info = DatasetInfo.model_validate(_with_openai_defaults(registry[name]))
    except ValidationError as error:
        raise AnnotationError(f"{path}: data set {name}: " + "; ".join(_explain(e) for e in error.errors())) from error
    _check_kind(info, rows, f"{path}: data set {name}")
    _check_usable(info, f"{path}: data set {name}")
    return info


def data_files(info: DatasetInfo, dataset_dir: str) -> list[Path]:
    """The local files that hold the rows, sorted by name; those of an s3:// URI are downloaded.

    Raises:
        AnnotationError: there is none.
    """
    try:
        source = resolve(info.source, dataset_dir)
    except PathError as error:
        raise AnnotationError(f"file_name: {error}") from error
    for part in (info.folder, info.subset):
        source = storage.join(source, part) if part else source
    try:
        path = storage.local_path(source)
    except FileNotFoundError as error:
        raise AnnotationError(f"file_name: {source} does not exist: expected a file or folder with the rows") from error
    files = _files_of_split(path, info.split) if path.is_dir() else [path]
    wrong = [file.name for file in files if not tables.is_table(file)]
    if wrong or not files:
        expected = ", ".join(tables.SUFFIXES)
        hint = ": save the workbook as CSV UTF-8" if any(name.endswith(_WORKBOOKS) for name in wrong) else ""
        raise AnnotationError(f"{source}: expected {expected} files, got {', '.join(wrong) or 'none'}{hint}")
    return files


def read_rows(path: Path, *, delimiter: str | None = None, encoding: str | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a data file, as they stand there, one by one: the file may be larger than memory.

    `delimiter` and `encoding` as in `ivcp.data.tables.read_rows`.

    Raises:
        AnnotationError: the file is no such file, or a row has no keys.
    """
    with _refused(path):
        for number, row in enumerate(tables.read_rows(path, delimiter=delimiter, encoding=encoding)):
            if not isinstance(row, dict):
                raise AnnotationError(f"{path} row {number}: expected an object with keys, got {type(row).__name__}")
            yield row


def read_registry(path: str) -> dict[str, Any]:
    """All entries of a registry, as they stand there.

    Raises:
        AnnotationError: there is no such file, or it is no registry.
    """
    try:
        registry = read_described(path)
    except FileNotFoundError as error:
        raise AnnotationError(f"{path} does not exist: set dataset_dir to the folder with {REGISTRY_FILE}") from error
    if not isinstance(registry, dict):
        raise AnnotationError(f"{path}: expected an object with one entry per data set, got {type(registry).__name__}")
    return registry


def read_described(uri: str) -> Any:
    """The value of a JSON file, here or at an s3:// URI, that says something about rows.

    Raises:
        FileNotFoundError: there is none.
        AnnotationError: it is no JSON.
    """
    path = storage.local_path(uri)
    with _refused(path):
        return tables.read_json(path, shown=uri)


@contextmanager
def _refused(path: Path) -> Iterator[None]:
    try:
        yield
    except tables.EncodingError as error:
        raise AnnotationError(f"{error}: {tables.how_to_convert(path)}") from error
    except tables.TableError as error:
        raise AnnotationError(str(error)) from error


def _with_openai_defaults(entry: Any) -> Any:
    """`formatting: openai` means OpenAI's keys, where the entry does not say otherwise."""
    if not isinstance(entry, dict) or entry.get("formatting") != "openai":
        return entry
    return entry | {
        "columns": {"messages": "messages"} | entry.get("columns", {}),
        "tags": _OPENAI_TAGS.model_dump() | entry.get("tags", {}),
    }


def _check_kind(info: DatasetInfo, rows: RowKind, where: str) -> None:
    """Refuses an entry whose rows are not what the stage asks for: it would learn something else without a word."""
    columns = info.columns
    if rows == "labels":
        if info.ranking:
            raise AnnotationError(
                f"{where}: ranking = true: preference pairs have no class; use a data set with labels"
            )
        return
    if info.ranking and rows != "pairs":
        raise AnnotationError(f"{where}: ranking = true: pairs of answers are for stage: dpo or rm; {_USED[rows]}")
    if rows == "pairs":
        missing = [name for name in ("chosen", "rejected") if getattr(columns, name) is None]
        if not info.ranking or missing:
            lacks = ", ".join(f"columns.{name}" for name in missing) if info.ranking else "ranking: true"
            raise AnnotationError(f"{where} has no {lacks}: {_USED[rows]}")
    if columns.kto_tag and rows != "tags":
        raise AnnotationError(
            f"{where}: columns.kto_tag = {columns.kto_tag!r}: answers with a tag are for stage: kto; {_USED[rows]}"
        )
    if rows == "tags" and not columns.kto_tag:
        raise AnnotationError(f"{where} has no columns.kto_tag: {_USED[rows]}")
    if rows == "texts" and info.formatting != "alpaca":
        raise AnnotationError(f"{where}: formatting = {info.formatting}: {_USED[rows]}")


def _check_usable(info: DatasetInfo, where: str) -> None:
    if info.cloud_file_name and not info.cloud_file_name.startswith("s3://"):
        raise AnnotationError(f"{where}: cloud_file_name = {info.cloud_file_name!r}: expected an s3:// URI")
    if info.file_name is None and info.cloud_file_name is None:
        given = [key for key in _NOT_READ if key in info.model_fields_set]
        found = f"{', '.join(given)} cannot be read here" if given else "it has none"
        raise AnnotationError(f"{where}: expected file_name or cloud_file_name; {found}: download the data and name it")


def _files_of_split(folder: Path, split: str) -> list[Path]:
    with _refused(folder):
        saved = tables.saved_files(folder, split)
    if saved is not None:
        return saved
    files = sorted(path for path in folder.iterdir() if tables.has_rows(path))
    by_split = [path for path in files if _first_word(path) in _SPLIT_NAMES]
    return [path for path in by_split if _first_word(path) == split] if by_split else files


def _first_word(path: Path) -> str:
    return path.name.replace("_", "-").replace(".", "-").split("-")[0].lower()


def _explain(error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] != "extra_forbidden":
        return f"{key} = {error['input']!r}: {error['msg'][0].lower()}{error['msg'][1:]}"
    sections: dict[str, type[Record]] = {"columns": Columns, "tags": Tags}
    section = sections.get(str(error["loc"][0]), DatasetInfo)
    nearest = difflib.get_close_matches(str(error["loc"][-1]), section.model_fields, n=1, cutoff=0.5)
    return f"unknown key {key}" + (f"; did you mean {nearest[0]}?" if nearest else "")
