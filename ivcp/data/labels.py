"""Classes: the file that names them, ids as they stand in rows, and names that are nearly the same."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from pydantic import ValidationError

from ivcp import storage
from ivcp.data.paths import PathError, is_broken, resolve
from ivcp.data.problems import AnnotationError
from ivcp.data.registry import DatasetInfo
from ivcp.data.values import shown
from ivcp.records import LABELS_FILE, Labels

_MOST_DIGITS = 18
_MOST_NAMES = 20


class LabelsError(ValueError):
    """Class names that cannot be used; the message says what was expected and what came."""


def labels_files(infos: Iterable[DatasetInfo], dataset_dir: str) -> list[str]:
    """The labels files that data sets name, as absolute paths or s3:// URIs; else the one of `dataset_dir`, if any.

    Raises:
        AnnotationError: one is named by a path that cannot be read from here.
    """
    try:
        named = sorted({resolve(info.labels, dataset_dir) for info in infos if info.labels})
    except PathError as error:
        raise AnnotationError(f"labels: {error}") from error
    default = storage.join(dataset_dir, LABELS_FILE)
    return named or ([default] if storage.exists(default) else [])


def labels_of(content: Any) -> Labels:
    """The classes of a labels file's JSON, or of a list of names; names without spaces around them.

    Raises:
        LabelsError: it is no such content, or a name is blank or stands there twice.
    """
    if isinstance(content, list):
        content = {"label_names": content}
    if not isinstance(content, dict) or not isinstance(content.get("label_names"), list):
        raise LabelsError(f"expected label_names, a list of at least two names, got {shown(content)}")
    if wrong := {"problem_type", "scale"} & content.keys():
        raise LabelsError(f"{', '.join(sorted(wrong))}: expected label_names, and what a label is among the settings")
    pairs = content.get("reversed_pairs", [])
    content = {
        **{key: value for key, value in content.items() if key != "heads"},  # those are for action_heads
        "label_names": stripped(content["label_names"]),
        "reversed_pairs": [stripped(pair) if isinstance(pair, list) else pair for pair in pairs],
    }
    try:
        return Labels.model_validate(content)
    except ValidationError as error:
        reasons = "; ".join(f"{'.'.join(map(str, e['loc']))} {e['msg']}".strip() for e in error.errors())
        raise LabelsError(f"expected label_names, a list of at least two names: {reasons}") from error


def stripped(names: Sequence[Any]) -> list[Any]:
    """Class names without spaces around them.

    Raises:
        LabelsError: one is blank, or holds half of a character.
    """
    kept = [name.strip() if isinstance(name, str) else name for name in names]
    if "" in kept:
        raise LabelsError(f"the name of class {kept.index('')} is blank: expected text")
    for number, name in enumerate(kept):
        if isinstance(name, str) and is_broken(name):
            raise LabelsError(f"the name of class {number}, {name!a}, holds half of a character: write it whole")
    return kept


def class_id(label: int | str) -> int | None:
    """The number of a label that is an id, also in decimals; None for a name."""
    if isinstance(label, int):
        return label
    return int(label) if label.isdecimal() and len(label) <= _MOST_DIGITS else None


def explain_from_one(ids: Collection[int], num_classes: int) -> str | None:
    """What to say where ids count from 1 and not from 0: no row has 0, and the largest is the number of classes.

    None where they do not.
    """
    if num_classes < 2 or 0 in ids or max(ids, default=0) != num_classes:
        return None
    return (
        f"class ids count from 0, and these seem to count from 1: no row has 0, and the largest of the {num_classes} "
        f"classes is {num_classes}. Subtract 1 from each, or write names"
    )


def explain_similar(names: Iterable[str]) -> str | None:
    """What to say of class names that differ in case, spaces or Unicode form only; None where none do."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in names:
        alike[_folded(name)].append(name)
    found = [" and ".join(map(repr, same)) for same in alike.values() if len(same) > 1]
    if not found:
        return None
    more = f" and {len(found) - _MOST_NAMES} more" if len(found) > _MOST_NAMES else ""
    return (
        f"class names that differ in case, spaces or Unicode form only: {', '.join(found[:_MOST_NAMES])}{more}. They "
        "are different classes; if they should not be, write them alike"
    )


def _folded(name: str) -> str:
    plain = unicodedata.normalize("NFKC", name).casefold()
    visible = (character for character in plain if unicodedata.category(character) != "Cf")
    return "".join("".join(visible).split())
