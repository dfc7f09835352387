"""What the rows of a run are labelled with: one class, or several, a class of each head, or a number."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ivcp.data.labels import LabelsError, labels_files, labels_of
from ivcp.data.problems import AnnotationError, Problems
from ivcp.data.registry import DatasetInfo, read_described
from ivcp.data.targets import Targets
from ivcp.records import Labels
from ivcp.records.problem_types import MULTI_LABEL, Head
from ivcp.settings import RunConfig
from ivcp.validation.catalog import Catalog
from ivcp.validation.rows.labels import NamedLabels, read_labels, resolve_labels

log = logging.getLogger(__name__)
_RANGES = 5
"""Of a number, by its quantiles: all splits get the same share of each."""
_OF_HEAD = (
    "(SELECT clip.id AS id, dataset, file, row_in_file, named_label.named AS named "
    "FROM named_label JOIN clip ON clip.id = named_label.clip WHERE head = {})"
)
_OF_LISTS = _OF_HEAD.removesuffix(" WHERE head = {})") + ")"


def targets_of(config: RunConfig) -> Targets:
    """What the settings say of the rows' labels."""
    return Targets(config.action_cls.problem_type, config.action_cls.action_heads)


def resolve_targets(
    catalog: Catalog, infos: Mapping[str, DatasetInfo], *, config: RunConfig, problems: Problems
) -> Labels:
    """What the rows are labelled with; notes each row's label in `catalog`. What is no class goes to `problems`.

    Raises:
        AnnotationError: as `resolve_labels` does, of each head; or all rows have the same number.
    """
    targets, dataset_dir = targets_of(config), config.data.dataset_dir
    match targets.kind:
        case "value":
            return _resolve_value(catalog, infos)
        case "heads":
            return _resolve_heads(catalog, infos, targets.heads, dataset_dir=dataset_dir, problems=problems)
        case "classes":
            return _resolve_lists(catalog, infos, config=config, problems=problems)
        case _:
            return resolve_labels(
                catalog,
                infos,
                dataset_dir=dataset_dir,
                num_action_classes=config.action_cls.num_action_classes,
                problems=problems,
            )


def target_names(catalog: Catalog, labels: Labels) -> list[str]:
    """What the numbers in `clip.label` stand for: classes, or all classes of a clip together, or numbers."""
    found = [name for (name,) in catalog.ask("SELECT name FROM target ORDER BY label")]
    return found or list(labels.label_names)


def _resolve_lists(
    catalog: Catalog, infos: Mapping[str, DatasetInfo], *, config: RunConfig, problems: Problems
) -> Labels:
    columns = {name: info.columns.action_label for name, info in infos.items()}
    labels = NamedLabels(catalog, columns, _OF_LISTS).resolve(
        read_labels(infos, config.data.dataset_dir),
        num_action_classes=config.action_cls.num_action_classes,
        problems=problems,
    )
    problems.raise_if_any()
    catalog.ask(
        "INSERT INTO clip_class SELECT clip.id, known.label FROM named_label JOIN clip ON clip.id = named_label.clip "
        "JOIN known_label AS known ON known.dataset = clip.dataset AND known.named = named_label.named"
    )
    _check_once(catalog, labels, columns, problems)
    _note_together(catalog, labels.label_names)
    return Labels(problem_type=MULTI_LABEL, label_names=labels.label_names)


def _check_once(catalog: Catalog, labels: Labels, columns: Mapping[str, str], problems: Problems) -> None:
    """A class may be named in two ways, by its id and its name."""
    twice = catalog.ask(
        "SELECT clip.dataset, clip.file, clip.row_in_file, clip_class.label FROM clip_class "
        "JOIN clip ON clip.id = clip_class.clip GROUP BY clip.id, clip_class.label HAVING COUNT(*) > 1 ORDER BY clip.id"
    )
    for dataset, file, row, label in twice.fetchall():
        problems.add(dataset, Path(file), row, f"{columns[dataset]}: {labels.label_names[label]!r} stands there twice")
    problems.raise_if_any()


def _resolve_heads(
    catalog: Catalog,
    infos: Mapping[str, DatasetInfo],
    names: tuple[str, ...],
    *,
    dataset_dir: str,
    problems: Problems,
) -> Labels:
    known, heads = _read_heads(infos, names, dataset_dir), list[Head]()
    for number, name in enumerate(names):
        rows = NamedLabels(catalog, dict.fromkeys(infos, name), _OF_HEAD.format(number))
        given = Labels(label_names=known[name]) if name in known else None
        try:
            labels = rows.resolve(given, num_action_classes=None, problems=problems)
        except AnnotationError as error:
            raise AnnotationError(f"head {name}: {error}") from error
        problems.raise_if_any()
        first = sum(head.num_classes for head in heads)
        catalog.ask(
            "INSERT INTO clip_class SELECT clip.id, known.label + ? FROM named_label JOIN clip ON clip.id = "
            "named_label.clip JOIN known_label AS known ON known.dataset = clip.dataset AND known.named = "
            "named_label.named WHERE named_label.head = ?",
            *(first, number),
        )
        heads.append(Head(name=name, label_names=labels.label_names))
    found = Labels.of_heads(tuple(heads))
    starts = np.repeat([outputs.start for outputs in found.outputs_of_heads], [head.num_classes for head in heads])
    _note_together(catalog, found.label_names, starts=starts.tolist())
    return found


def _read_heads(
    infos: Mapping[str, DatasetInfo], names: tuple[str, ...], dataset_dir: str
) -> dict[str, tuple[str, ...]]:
    """The classes of heads that labels files name: `{"heads": {"verb": ["cut", …]}}`."""
    found: dict[str, tuple[str, ...]] = {}
    for path in labels_files(infos.values(), dataset_dir):
        try:
            content = read_described(path)
        except FileNotFoundError as error:
            raise AnnotationError(f"labels: {path} does not exist: expected a file with heads") from error
        heads = content.get("heads", {}) if isinstance(content, dict) else {}
        if not isinstance(heads, dict) or not all(isinstance(names, list) for names in heads.values()):
            raise AnnotationError(f'{path}: expected "heads": {{"<column>": ["<class>", …], …}}')
        for name, classes in heads.items():
            try:
                classes = labels_of(classes).label_names
            except LabelsError as error:
                raise AnnotationError(f"{path}: head {name}: {error}") from error
            if found.setdefault(name, classes) != classes:
                raise AnnotationError(f"{path}: head {name} has other classes in another labels file of this run")
    if found and (missing := [name for name in names if name not in found]):
        log.warning(
            "labels files name the classes of %s, and not those of %s: they are the names in the rows",
            ", ".join(found),
            ", ".join(missing),
        )
    return found


def _note_together(catalog: Catalog, names: tuple[str, ...], *, starts: list[int] | None = None) -> None:
    """Numbers all classes of a clip together; `starts` is the first class of each class's head, where there are some.

    A head's classes are counted from it.
    """
    together: dict[str, int] = {}
    changed: list[tuple[int, int]] = []
    found = catalog.ask(
        "SELECT clip, group_concat(label) FROM (SELECT clip, label FROM clip_class ORDER BY clip, label) GROUP BY clip"
    )
    for clip, text in found:
        changed.append((together.setdefault(text, len(together)), clip))
    catalog.change("UPDATE clip SET label = ? WHERE id = ?", changed)

    def described() -> list[tuple[int, str, str]]:
        rows = []
        for text, number in together.items():
            labels = [int(label) for label in text.split(",")]
            own = [label - starts[label] for label in labels] if starts else labels
            rows.append((number, ", ".join(names[label] for label in labels), json.dumps(own)))
        return rows

    catalog.change("INSERT INTO target VALUES (?, ?, ?)", described())


def _resolve_value(catalog: Catalog, infos: Mapping[str, DatasetInfo]) -> Labels:
    columns = {info.columns.action_label for info in infos.values()}
    values = np.array([value for (value,) in catalog.ask("SELECT DISTINCT value FROM clip ORDER BY 1")])
    if len(values) < 2:
        raise AnnotationError(
            f"{' and '.join(sorted(columns))}: all rows have the same number"
            f"{f', {values[0]:g}' if len(values) else ''}: there is nothing to learn"
        )
    catalog.change(
        "INSERT INTO target (label, name) VALUES (?, ?)", ((n, f"{value:g}") for n, value in enumerate(values))
    )
    catalog.ask("CREATE TEMP TABLE IF NOT EXISTS number (value REAL PRIMARY KEY, label INTEGER)")
    catalog.change("INSERT INTO number VALUES (?, ?)", ((float(value), n) for n, value in enumerate(values)))
    catalog.ask("UPDATE clip SET label = (SELECT label FROM number WHERE number.value = clip.value)")
    all_values = np.array([value for (value,) in catalog.ask("SELECT value FROM clip ORDER BY id")])
    edges = np.unique(np.quantile(all_values, np.linspace(0, 1, min(_RANGES, len(values)) + 1)[1:-1]))
    ids = [number for (number,) in catalog.ask("SELECT id FROM clip ORDER BY id")]
    ranges = np.searchsorted(edges, all_values, side="left").tolist()
    catalog.change("INSERT INTO clip_class VALUES (?, ?)", zip(ids, ranges, strict=True))
    return Labels.of_value(min(columns))
