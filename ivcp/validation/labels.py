"""The classes of a run: from labels files, or from the labels of the rows."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from ivcp import storage
from ivcp.data.annotations import Problems
from ivcp.data.registry import AnnotationError, DatasetInfo
from ivcp.records import LABELS_FILE, Labels
from ivcp.validation.catalog import Catalog

_MOST_NAMES = 20


def resolve_labels(
    catalog: Catalog,
    infos: Mapping[str, DatasetInfo],
    *,
    dataset_dir: str,
    num_action_classes: int | None,
    problems: Problems,
) -> Labels:
    """The classes; notes each row's label in `catalog`. Rows whose label is no class go to `problems`.

    The classes stand in a labels file; without one they are the sorted names in the rows, or, where the rows hold
    ids, "0", "1", and so on.

    Raises:
        AnnotationError: the data sets' labels files disagree, or `num_action_classes` disagrees with the labels.
    """
    labels = read_labels(infos, dataset_dir) or _labels_of_rows(catalog, num_action_classes, problems)
    _check_number(labels, num_action_classes)
    label_of = {name: label for label, name in enumerate(labels.label_names)}
    for dataset, named in _named_labels(catalog):
        label = _find(named, label_of)
        if label is None:
            _add_problem(catalog, dataset, named, _explain_unknown(named, infos[dataset], labels), problems)
        else:
            catalog.ask("INSERT INTO known_label VALUES (?, ?, ?)", dataset, named, label)
    catalog.ask(
        "UPDATE clip SET label = (SELECT label FROM known_label AS known "
        "WHERE known.dataset = clip.dataset AND known.named = clip.named)"
    )
    return labels


def read_labels(infos: Mapping[str, DatasetInfo], dataset_dir: str) -> Labels | None:
    """The labels file of the data sets, or the one that `dataset_dir` has, or None.

    Raises:
        AnnotationError: a file that the registry names is missing, one holds no labels, or two disagree.
    """
    named = {info.labels for info in infos.values() if info.labels}
    default = storage.join(dataset_dir, LABELS_FILE)
    paths = sorted(storage.join(dataset_dir, name) for name in named) or ([default] if storage.exists(default) else [])
    found = [(path, _read_file(path)) for path in paths]
    for path, labels in found[1:]:
        if labels != found[0][1]:
            raise AnnotationError(f"{found[0][0]} and {path} hold different classes: data sets of one run must agree")
    return found[0][1] if found else None


def check_every_class_is_trained(
    labels: Labels, training_labels: Iterable[int], *, max_samples: int | None = None, num_quarantined: int = 0
) -> None:
    """`max_samples` and the rows in quarantine are what else may have left a class without one.

    Raises:
        AnnotationError: a class has no row in the training split.
    """
    counts = Counter(training_labels)
    empty = [name for label, name in enumerate(labels.label_names) if not counts[label]]
    if empty:
        raise AnnotationError(
            f"{len(empty)} of {labels.num_classes} classes have no training row: {_names(empty)}. "
            + _what_took_them(max_samples, num_quarantined)
        )


def _what_took_them(max_samples: int | None, num_quarantined: int) -> str:
    reasons = []
    if max_samples is not None:
        reasons.append(f"raise max_samples = {max_samples}, which may have left their rows out")
    if num_quarantined:
        reasons.append(f"look at the {num_quarantined} rows in quarantine, which may be theirs")
    reasons.append("add rows, or take the classes out of the labels")
    if not reasons[1:]:
        reasons.append("make val_size and test_size smaller")
    text = "; or ".join(reasons)
    return text[0].upper() + text[1:]


def _labels_of_rows(catalog: Catalog, num_action_classes: int | None, problems: Problems) -> Labels:
    found = _named_labels(catalog)
    names = sorted({str(named) for _, named in found if not _is_id(named)})
    if names:
        for dataset, named in found:
            if _is_id(named):
                message = f"action_label = {named!r} is an id, other rows have names: add {LABELS_FILE}"
                _add_problem(catalog, dataset, named, message, problems)
        problems.raise_if_any()
    else:
        largest = max((int(named) for _, named in found), default=-1)
        names = [str(label) for label in range(num_action_classes or largest + 1)]
    if len(names) < 2:
        raise AnnotationError(f"expected at least two classes, the rows have {len(names)}: {_names(names)}")
    return Labels(label_names=tuple(names))


def _named_labels(catalog: Catalog) -> list[tuple[str, int | str]]:
    """The labels as they stand in the rows of each data set."""
    return catalog.ask("SELECT dataset, named FROM clip GROUP BY 1, 2 ORDER BY MIN(id)").fetchall()


def _add_problem(catalog: Catalog, dataset: str, named: int | str, message: str, problems: Problems) -> None:
    rows = catalog.ask("SELECT file, row_in_file FROM clip WHERE dataset = ? AND named = ?", dataset, named)
    for file, row in rows:
        problems.add(dataset, Path(file), row, message)


def _check_number(labels: Labels, num_action_classes: int | None) -> None:
    if num_action_classes is not None and num_action_classes != labels.num_classes:
        raise AnnotationError(
            f"num_action_classes = {num_action_classes}, but the labels have {labels.num_classes} classes "
            f"({_names(labels.label_names)}): correct it, or leave it out to count them"
        )


def _find(label: int | str, label_of: Mapping[str, int]) -> int | None:
    if isinstance(label, str) and label in label_of:
        return label_of[label]
    return int(label) if _is_id(label) and int(label) < len(label_of) else None


def _is_id(label: int | str) -> bool:
    return isinstance(label, int) or label.isdecimal()


def _explain_unknown(named: int | str, info: DatasetInfo, labels: Labels) -> str:
    column = info.columns.action_label
    if _is_id(named):
        return f"{column} = {named} is out of range: class ids are 0 to {labels.num_classes - 1}"
    by_lower = {name.lower(): name for name in labels.label_names}
    nearest = difflib.get_close_matches(str(named).lower(), by_lower, n=1, cutoff=0.4)
    hint = f"the nearest is {by_lower[nearest[0]]!r}" if nearest else f"classes: {_names(labels.label_names)}"
    return f"{column} = {named!r} is no class; {hint}"


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more


def _read_file(path: str) -> Labels:
    try:
        return Labels.model_validate(json.loads(storage.read_text(path)))
    except FileNotFoundError as error:
        raise AnnotationError(f"labels: {path} does not exist: expected a file with label_names") from error
    except json.JSONDecodeError as error:
        raise AnnotationError(f"{path} is not valid JSON: {error}") from error
    except ValidationError as error:
        reasons = "; ".join(f"{'.'.join(map(str, e['loc']))} {e['msg']}".strip() for e in error.errors())
        raise AnnotationError(f"{path} is no labels file: {reasons}") from error
