"""Class names: from the files that people keep them in, and from what the rows say."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ivcp.data.labels import LabelsError, class_id, labels_of, stripped
from ivcp.imports.listing import ImportRefusedError, read_source_json, read_source_text
from ivcp.records import Labels

_NUMBERED = re.compile(r"(\d{1,18})[\s,]+(\S.*)")


@dataclass(frozen=True)
class ClassNames:
    """What a file says of the classes."""

    labels: Labels
    from_one: bool = False
    """Whether the ids in it count from 1: those of the rows may then do so as well."""


def read_class_names(path: Path) -> ClassNames:
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
        return _in_order({found[2].strip(): int(found[1]) for found in numbered if found}, path, num_entries=len(lines))
    return ClassNames(make_labels(lines, str(path)))


def make_labels(names: Iterable[str], where: str) -> Labels:
    """Labels of these names, in this order, without spaces around them.

    Raises:
        ImportRefusedError: there are fewer than two, one is blank, or one stands there twice.
    """
    try:
        ordered = tuple(stripped(tuple(names)))
    except LabelsError as error:
        raise ImportRefusedError(f"{where}: {error}") from error
    if len(ordered) < 2:
        raise ImportRefusedError(f"{where}: expected at least two classes, got {', '.join(ordered) or 'none'}")
    twice = [name for name, count in Counter(ordered).items() if count > 1]
    if twice:
        raise ImportRefusedError(f"{where}: classes that stand there twice: {', '.join(twice[:10])}")
    return Labels(label_names=ordered)


def _from_json(content: Any, path: Path) -> ClassNames:
    if isinstance(content, list) and all(isinstance(name, str) for name in content):
        return ClassNames(make_labels(content, str(path)))
    if isinstance(content, dict) and "label_names" in content:
        try:
            return ClassNames(labels_of(content))
        except LabelsError as error:
            raise ImportRefusedError(f"{path} is no labels file: {error}") from error
    if isinstance(content, dict) and content:
        by_name = content if all(_is_id(value) for value in content.values()) else _turned(content)
        if all(_is_id(value) for value in by_name.values()):
            return _in_order({name: int(value) for name, value in by_name.items()}, path, num_entries=len(content))
    raise ImportRefusedError(f"{path}: expected a list of class names, or an object with a class id for each name")


def _in_order(id_of: Mapping[str, int], path: Path, *, num_entries: int) -> ClassNames:
    ids = sorted(id_of.values())
    if len(id_of) < num_entries or ids not in (list(range(len(ids))), list(range(1, len(ids) + 1))):
        raise ImportRefusedError(
            f"{path}: {num_entries} classes with the ids {ids[:5]} …: expected each name and each id once, from 0 or 1"
        )
    return ClassNames(make_labels(sorted(id_of, key=lambda name: id_of[name]), str(path)), from_one=ids[0] == 1)


def _turned(content: Mapping[str, Any]) -> dict[str, Any]:
    return {str(name): number for number, name in content.items()}


def _is_id(value: Any) -> bool:
    number = class_id(value) if isinstance(value, int | str) and not isinstance(value, bool) else None
    return number is not None and number >= 0
