"""Class names: from the files that people keep them in, and from what the rows say."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ivcp.imports.listing import ImportRefusedError, read_source_json, read_source_text
from ivcp.records import Labels

_NUMBERED = re.compile(r"(\d+)[\s,]+(\S.*)")


def read_class_names(path: Path) -> Labels:
    """The classes of a file: `labels.json`; a JSON list, or object name ↔ id; text lines `name` or `id name`.

    Ids may count from 0 or from 1.

    Raises:
        ImportRefusedError: it is no such file.
    """
    if path.suffix == ".json":
        return _from_json(read_source_json(path), path)
    lines = [line.strip() for line in read_source_text(path).splitlines() if line.strip()]
    numbered = [_NUMBERED.fullmatch(line) for line in lines]
    if lines and all(numbered):
        return _in_order({found[2]: int(found[1]) for found in numbered if found}, path, num_entries=len(lines))
    return make_labels(lines, str(path))


def make_labels(names: Iterable[str], where: str) -> Labels:
    """Labels of these names, in this order.

    Raises:
        ImportRefusedError: there are fewer than two, or one stands there twice.
    """
    ordered = tuple(names)
    if len(ordered) < 2:
        raise ImportRefusedError(f"{where}: expected at least two classes, got {', '.join(ordered) or 'none'}")
    twice = sorted({name for name in ordered if ordered.count(name) > 1}) if len(set(ordered)) < len(ordered) else []
    if twice:
        raise ImportRefusedError(f"{where}: classes that stand there twice: {', '.join(twice[:10])}")
    return Labels(label_names=ordered)


def _from_json(content: Any, path: Path) -> Labels:
    if isinstance(content, list) and all(isinstance(name, str) for name in content):
        return make_labels(content, str(path))
    if isinstance(content, dict) and "label_names" in content:
        try:
            return Labels.model_validate(content)
        except ValidationError as error:
            raise ImportRefusedError(f"{path} is no labels file: {error.errors()[0]['msg']}") from error
    if isinstance(content, dict) and content:
        by_name = content if all(_is_id(value) for value in content.values()) else _turned(content)
        if all(_is_id(value) for value in by_name.values()):
            return _in_order({name: int(value) for name, value in by_name.items()}, path, num_entries=len(content))
    raise ImportRefusedError(f"{path}: expected a list of class names, or an object with a class id for each name")


def _in_order(id_of: Mapping[str, int], path: Path, *, num_entries: int) -> Labels:
    ids = sorted(id_of.values())
    if len(id_of) < num_entries or ids not in (list(range(len(ids))), list(range(1, len(ids) + 1))):
        raise ImportRefusedError(
            f"{path}: {num_entries} classes with the ids {ids[:5]} …: expected each name and each id once, from 0 or 1"
        )
    return make_labels(sorted(id_of, key=lambda name: id_of[name]), str(path))


def _turned(content: Mapping[str, Any]) -> dict[str, Any]:
    return {str(name): number for number, name in content.items()}


def _is_id(value: Any) -> bool:
    return str(value).isdecimal()
