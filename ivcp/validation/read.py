"""All annotations of a run: data sets, labels and splits together."""

from __future__ import annotations

import random

from ivcp.data.annotations import Problems, read_dataset
from ivcp.data.registry import AnnotationError, DatasetInfo, read_dataset_info
from ivcp.records import Labels, Split
from ivcp.settings import RunConfig
from ivcp.validation.catalog import Catalog
from ivcp.validation.kept_splits import load_kept_splits
from ivcp.validation.labels import check_every_class_is_trained, resolve_labels
from ivcp.validation.splits import assign_splits


def read_annotations(config: RunConfig, catalog: Catalog) -> Labels:
    """Reads all data sets of a run into `catalog`, with their labels and splits; returns the classes.

    Raises:
        AnnotationError: something is wrong with them; the message names everything that was found.
    """
    names = _names_by_split(config)
    infos = {name: read_dataset_info(name, config.data.dataset_dir) for name in names}
    problems = Problems()
    for name, info in infos.items():
        _read_rows(name, info, names[name], config, catalog, problems)
    if not catalog.number("SELECT COUNT(*) FROM clip"):
        problems.raise_if_any()
    labels = resolve_labels(
        catalog,
        infos,
        dataset_dir=config.data.dataset_dir,
        num_action_classes=config.action_cls.num_action_classes,
        problems=problems,
    )
    problems.raise_if_any()
    load_kept_splits(catalog, config.data)
    assign_splits(catalog, config)
    trained = catalog.ask("SELECT DISTINCT label FROM clip WHERE split = 'train'")
    check_every_class_is_trained(labels, (label for (label,) in trained))
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
    name: str, info: DatasetInfo, split: Split, config: RunConfig, catalog: Catalog, problems: Problems
) -> None:
    rows = read_dataset(
        name,
        info,
        dataset_dir=config.data.dataset_dir,
        media_dir=config.data.media_dir,
        action_token=config.action_cls.action_token,
        problems=problems,
    )
    for row in rows:
        catalog.add(row, split=(row.split or "train") if split == "train" else split)
    for limit in (info.num_samples, config.data.max_samples):
        if limit is not None:
            _sample(name, limit, config.train.seed, catalog)


def _sample(name: str, limit: int, seed: int, catalog: Catalog) -> None:
    """Keeps `limit` rows of a data set, in their order: a seeded choice."""
    ids = [number for (number,) in catalog.ask("SELECT id FROM clip WHERE dataset = ? ORDER BY id", name)]
    if limit < len(ids):
        kept = {ids[place] for place in random.Random(f"{seed}:{name}").sample(range(len(ids)), limit)}
        catalog.change("DELETE FROM clip WHERE id = ?", ((number,) for number in ids if number not in kept))
        for table in ("video", "conversation"):
            catalog.ask(f"DELETE FROM {table} WHERE id NOT IN (SELECT {table} FROM clip)")
