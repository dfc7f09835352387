"""The classes of a run: from labels files, or from the labels of the rows."""

from __future__ import annotations

import difflib
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ivcp.data.labels import LabelsError, class_id, explain_from_one, explain_similar, labels_files, labels_of
from ivcp.data.problems import AnnotationError, Problems
from ivcp.data.registry import DatasetInfo, read_described
from ivcp.records import LABELS_FILE, Labels
from ivcp.validation.catalog import Catalog

log = logging.getLogger(__name__)
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
    ids, "0", "1", and so on. Names that are nearly the same are logged.

    Raises:
        AnnotationError: the data sets' labels files disagree, `num_action_classes` disagrees with the labels, or ids
            count from 1.
    """
    names = NamedLabels(catalog, {name: info.columns.action_label for name, info in infos.items()})
    labels = names.resolve(read_labels(infos, dataset_dir), num_action_classes=num_action_classes, problems=problems)
    catalog.ask(
        "UPDATE clip SET label = (SELECT label FROM known_label AS known "
        "WHERE known.dataset = clip.dataset AND known.named = clip.named)"
    )
    return labels


@dataclass(frozen=True)
class NamedLabels:
    """The labels as they stand in the rows of each data set."""

    catalog: Catalog
    columns: Mapping[str, str]
    """The column that holds them, by data set."""
    table: str = "clip"
    """A query's source with columns `id`, `dataset`, `named`, `file` and `row_in_file`."""

    def resolve(self, labels: Labels | None, *, num_action_classes: int | None, problems: Problems) -> Labels:
        """The classes, which are `labels` where that is given; notes in `known_label` which each name is.

        Raises:
            AnnotationError: as `resolve_labels` does.
        """
        named = self.all()
        labels = labels or _labels_of_rows(self, named, num_action_classes, problems)
        _check_number(labels, num_action_classes)
        label_of = {name: label for label, name in enumerate(labels.label_names)}
        _check_from_zero(named, label_of)
        self.catalog.ask("DELETE FROM known_label")
        for dataset, value in named:
            label = _find(value, label_of)
            if label is None:
                self.add_problem(dataset, value, _explain_unknown(value, self.columns[dataset], labels), problems)
            else:
                self.catalog.ask("INSERT INTO known_label VALUES (?, ?, ?)", dataset, value, label)
        similar = explain_similar(labels.label_names)
        if similar:
            log.warning("%s", similar)
        return labels

    def all(self) -> list[tuple[str, int | str]]:
        """Each once, with its data set."""
        return self.catalog.ask(f"SELECT dataset, named FROM {self.table} GROUP BY 1, 2 ORDER BY MIN(id)").fetchall()

    def add_problem(self, dataset: str, named: int | str, message: str, problems: Problems) -> None:
        """Notes what is wrong with one, for each of its rows."""
        rows = self.catalog.ask(
            f"SELECT file, row_in_file FROM {self.table} WHERE dataset = ? AND named = ?", dataset, named
        )
        for file, row in rows.fetchall():
            problems.add(dataset, Path(file), row, message)


def read_labels(infos: Mapping[str, DatasetInfo], dataset_dir: str) -> Labels | None:
    """The labels file of the data sets, or the one that `dataset_dir` has, or None.

    Raises:
        AnnotationError: a file that the registry names is missing, one holds no labels, or two disagree.
    """
    found = [(path, _read_file(path)) for path in labels_files(infos.values(), dataset_dir)]
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


def _labels_of_rows(
    rows: NamedLabels, named: Sequence[tuple[str, int | str]], num_action_classes: int | None, problems: Problems
) -> Labels:
    names = sorted({str(value) for _, value in named if class_id(value) is None})
    if names:
        for dataset, value in named:
            if class_id(value) is not None:
                message = (
                    f"{_column(rows)} = {value!r} is an id, other rows have names: write its name, or add a "
                    f"{LABELS_FILE} in which it is a position"
                )
                rows.add_problem(dataset, value, message, problems)
        problems.raise_if_any()
    else:
        names = [str(label) for label in range(_count_ids(rows, named, num_action_classes, problems))]
    if len(names) < 2:
        raise AnnotationError(f"expected at least two classes, the rows have {len(names)}: {_names(names)}")
    return Labels(label_names=tuple(names))


def _count_ids(
    rows: NamedLabels, named: Sequence[tuple[str, int | str]], num_action_classes: int | None, problems: Problems
) -> int:
    """The number of classes where all rows have ids.

    Raises:
        AnnotationError: ids count from 1, or one lies so far beyond the others that it cannot be one.
    """
    ids = {value: class_id(value) or 0 for _, value in named}
    num_rows = rows.catalog.number("SELECT COUNT(*) FROM clip")
    if num_action_classes is not None:
        if num_action_classes > num_rows:
            raise AnnotationError(
                f"num_action_classes = {num_action_classes}, but there are {num_rows} rows and every class needs one: "
                "correct it, or leave it out to count the classes"
            )
        return num_action_classes
    different = len(set(ids.values()))
    from_one = explain_from_one(ids.values(), different)
    if from_one:
        raise AnnotationError(f"data set {', '.join(dict.fromkeys(dataset for dataset, _ in named))}: {from_one}")
    for dataset, value in named:
        if ids[value] >= 2 * different:
            message = (
                f"{_column(rows)} = {value} is no class: ids count from 0 and every class needs a row, and the rows "
                f"have {different} different ids; correct it, or write names"
            )
            rows.add_problem(dataset, value, message, problems)
    problems.raise_if_any()
    return max(ids.values(), default=-1) + 1


def _check_from_zero(named: Sequence[tuple[str, int | str]], label_of: Mapping[str, int]) -> None:
    """Raises:
    AnnotationError: the labels of a data set are ids that count from 1.
    """
    by_dataset: dict[str, list[int | None]] = defaultdict(list)
    for dataset, value in named:
        by_dataset[dataset].append(None if value in label_of else class_id(value))
    for dataset, found in by_dataset.items():
        ids = [value for value in found if value is not None]
        from_one = explain_from_one(ids, len(label_of)) if len(ids) == len(found) else None
        if from_one:
            raise AnnotationError(f"data set {dataset}: {from_one}")


def _column(rows: NamedLabels) -> str:
    """What messages about all data sets call the column."""
    return "action_label" if rows.table == "clip" else next(iter(rows.columns.values()))


def _check_number(labels: Labels, num_action_classes: int | None) -> None:
    if num_action_classes is not None and num_action_classes != labels.num_classes:
        raise AnnotationError(
            f"num_action_classes = {num_action_classes}, but the labels have {labels.num_classes} classes "
            f"({_names(labels.label_names)}): correct it, or leave it out to count them"
        )


def _find(label: int | str, label_of: Mapping[str, int]) -> int | None:
    if isinstance(label, str) and label in label_of:
        return label_of[label]
    number = class_id(label)
    return number if number is not None and number < len(label_of) else None


def _explain_unknown(named: int | str, column: str, labels: Labels) -> str:
    if class_id(named) is not None:
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
        return labels_of(read_described(path))
    except FileNotFoundError as error:
        raise AnnotationError(f"labels: {path} does not exist: expected a file with label_names") from error
    except LabelsError as error:
        raise AnnotationError(f"{path} is no labels file: {error}") from error
