"""All annotations of a run: data sets, labels and splits together."""

from __future__ import annotations

import re

from ivcp.data.annotations import read_dataset
from ivcp.data.problems import AnnotationError, Problems
from ivcp.data.prompts import special_tokens_pattern
from ivcp.data.registry import DatasetInfo, read_dataset_info
from ivcp.records import Labels, RowKind, Split
from ivcp.settings import RunConfig
from ivcp.stages.registry import stage_of
from ivcp.validation.catalog import Catalog
from ivcp.validation.rows.labels import check_every_class_is_trained
from ivcp.validation.rows.samples import keep_samples
from ivcp.validation.rows.special_tokens import special_tokens_of
from ivcp.validation.rows.tags import check_both_tags
from ivcp.validation.rows.targets import resolve_targets, targets_of
from ivcp.validation.splits.assign import assign_splits
from ivcp.validation.splits.kept import load_kept_splits


def read_annotations(config: RunConfig, catalog: Catalog) -> Labels | None:
    """Reads all data sets of a run into `catalog`, with their labels and splits; returns the classes.

    Where the stage asks for no classes there are none.

    Raises:
        AnnotationError: something is wrong with them; the message names everything that was found.
    """
    names = _names_by_split(config)
    rows = stage_of(config).rows
    infos = {name: read_dataset_info(name, config.data.dataset_dir, rows=rows) for name in names}
    problems = Problems()
    special_tokens = special_tokens_pattern(special_tokens_of(config.model))
    for name, info in infos.items():
        _read_rows(name, info, names[name], config, catalog, problems, special_tokens, rows)
    if not catalog.number("SELECT COUNT(*) FROM clip"):
        problems.raise_if_any()
    labels = None
    if rows == "labels":
        labels = resolve_targets(catalog, infos, config=config, problems=problems)
    problems.raise_if_any()
    _check_rows_are_left(catalog, config)
    if not config.protocol.folds:
        load_kept_splits(catalog, config.data)
    assign_splits(catalog, config)
    if labels is not None and labels.kind != "value":
        trained = catalog.ask(f"SELECT DISTINCT class FROM {catalog.classes_of_clips} WHERE split = 'train'")
        check_every_class_is_trained(labels, (label for (label,) in trained))
    if rows == "tags":
        check_both_tags(catalog)
    return labels


def _names_by_split(config: RunConfig) -> dict[str, Split]:
    data = config.data
    if not data.dataset:
        raise AnnotationError("dataset is not set: name at least one entry of dataset_info.json to train on")
    names: dict[str, Split] = {}
    for split, chosen in (("train", data.dataset), ("val", data.eval_dataset), ("test", data.test_dataset)):
        for name in chosen:
            if name in names:
                raise AnnotationError(f"data set {name} is named for {names[name]} and for {split}: name it once")
            names[name] = split  # type: ignore[assignment]
    return names


def _read_rows(
    name: str,
    info: DatasetInfo,
    split: Split,
    config: RunConfig,
    catalog: Catalog,
    problems: Problems,
    special_tokens: re.Pattern[str],
    rows: RowKind,
) -> None:
    read = read_dataset(
        name,
        info,
        dataset_dir=config.data.dataset_dir,
        media_dir=config.data.media_dir,
        action_token=config.action_cls.action_token,
        problems=problems,
        special_tokens=special_tokens,
        rows=rows,
        targets=targets_of(config),
    )
    for row in read:
        catalog.add(row, split=(row.split or "train") if split == "train" else split)
    keep_samples(name, info.num_samples, config, catalog)


def _check_rows_are_left(catalog: Catalog, config: RunConfig) -> None:
    """Raises:
    AnnotationError: test_size and val_size together ask for all training rows.
    """
    names = config.data.dataset
    total = catalog.number("SELECT COUNT(*) FROM clip WHERE given = 'train'")
    of_all = catalog.number(f"SELECT COUNT(*) FROM clip WHERE dataset IN ({', '.join('?' * len(names))})", *names)
    sizes = {"test_size": config.data.test_size, "val_size": config.data.val_size}
    asked = sum(size * of_all if size < 1 else size for size in sizes.values())
    if asked and asked > total - 1:
        named = " and ".join(f"{name} = {size:g}" for name, size in sizes.items() if size)
        raise AnnotationError(
            f"{named} leave nothing to train on: there are {total} rows to cut from; make them smaller"
        )
