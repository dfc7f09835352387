"""Writes an imported data set: its folder, and its entries in `dataset_info.json`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ivcp.data.registry import REGISTRY_FILE, read_registry
from ivcp.imports.listing import ImportRefusedError
from ivcp.imports.rows import Built
from ivcp.records import LABELS_FILE, SPLITS
from ivcp.storage.atomic import replacing, writable_folder, write_whole

_NAME = re.compile(r"[\w.-]+")


def check_name(name: str, dataset_dir: Path, *, overwrite: bool) -> None:
    """Raises:
    ImportRefusedError: the name is none, or there is a data set of this name.
    """
    if not _NAME.fullmatch(name) or name.startswith("."):
        raise ImportRefusedError(f"--name {name!r}: expected letters, digits, _, - and .")
    taken = sorted(set(_read_registry(dataset_dir)) & {name, *(f"{name}_{split}" for split in SPLITS)})
    if taken and not overwrite:
        raise ImportRefusedError(
            f"{dataset_dir / REGISTRY_FILE} has {', '.join(taken)} already: choose another --name, or say --overwrite"
        )


def write_dataset(name: str, built: Built, dataset_dir: Path) -> dict[str, int]:
    """Writes `<name>/annotations.json`, or `<name>/<split>.json` for rows with splits, labels and registry entries, and
    the files that the rows brought along.

    The registry comes last and is replaced in one go: it never names a file that is not there. Its other entries
    stay as they are. Returns the number of rows by the name of the data set.
    """
    folder = writable_folder(dataset_dir / name)
    common = dict(built.entry)
    if built.labels:
        built.labels.write(folder / LABELS_FILE)
        common["labels"] = f"{name}/{LABELS_FILE}"
    for file, content in built.files.items():
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        with replacing(Path(file)) as partial:
            partial.write_bytes(content)
    entries, counts = {}, {}
    for suffix, file, rows in _parts(built.rows):
        _write_rows(folder / file, rows)
        entries[name + suffix] = {"file_name": f"{name}/{file}", **common}
        counts[name + suffix] = len(rows)
    _register(name, entries, dataset_dir)
    return counts


def _parts(rows: list[dict[str, Any]]) -> list[tuple[str, str, list[dict[str, Any]]]]:
    """What follows the data set's name, the file, and its rows: one part per split, or one of all rows."""
    if not any("split" in row for row in rows):
        return [("", "annotations.json", rows)]
    by_split = {split: [row for row in rows if row.get("split", "train") == split] for split in SPLITS}
    return [(f"_{split}", f"{split}.json", chosen) for split, chosen in by_split.items() if chosen]


def _write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """A JSON list with one row per line, whole or not at all."""
    with replacing(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.write("[\n")
        for number, row in enumerate(rows):
            file.write((",\n" if number else "") + json.dumps(row, ensure_ascii=False))
        file.write("\n]\n")


def _register(name: str, entries: Mapping[str, Any], dataset_dir: Path) -> None:
    before = _read_registry(dataset_dir)
    kept = {key: entry for key, entry in before.items() if not _is_older(entry, name)}
    write_whole(dataset_dir / REGISTRY_FILE, json.dumps({**kept, **entries}, indent=2, ensure_ascii=False) + "\n")


def _is_older(entry: Any, name: str) -> bool:
    """Whether an earlier import of the same name wrote it: its splits may have been others."""
    return isinstance(entry, dict) and str(entry.get("file_name", "")).startswith(f"{name}/")


def _read_registry(dataset_dir: Path) -> dict[str, Any]:
    path = dataset_dir / REGISTRY_FILE
    return read_registry(str(path)) if path.exists() else {}
