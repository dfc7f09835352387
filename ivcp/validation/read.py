"""All annotations of a run: data sets, labels and splits together."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping

from ivcp.data.annotations import read_dataset
from ivcp.data.problems import AnnotationError, Problems
from ivcp.data.prompts import special_tokens_pattern
from ivcp.data.registry import DatasetInfo, read_dataset_info
from ivcp.data.splits import cut_split
from ivcp.records import Labels, Split
from ivcp.settings import RunConfig
from ivcp.validation.catalog import Catalog
from ivcp.validation.labels import check_every_class_is_trained, resolve_labels
from ivcp.validation.samples import keep_samples
from ivcp.validation.special_tokens import special_tokens_of
from ivcp.video.perceptual import join_pairs


def read_annotations(config: RunConfig, catalog: Catalog) -> Labels:
    """Reads all data sets of a run into `catalog`, with their labels and splits; returns the classes.

    Raises:
        AnnotationError: something is wrong with them; the message names everything that was found.
    """
    names = _names_by_split(config)
    infos = {name: read_dataset_info(name, config.data.dataset_dir) for name in names}
    problems = Problems()
    special_tokens = special_tokens_pattern(special_tokens_of(config.model))
    for name, info in infos.items():
        _read_rows(name, info, names[name], config, catalog, problems, special_tokens)
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
    _check_rows_are_left(catalog, config)
    assign_splits(catalog, config)
    trained = catalog.ask("SELECT DISTINCT label FROM clip WHERE split = 'train'")
    check_every_class_is_trained(labels, (label for (label,) in trained))
    return labels


def assign_splits(catalog: Catalog, config: RunConfig) -> None:
    """The split that the data set is named for, or that the row names, or that is cut from the training rows.

    Raises:
        AnnotationError: a split is asked for that is there already, or that cannot be cut.
    """
    catalog.ask("UPDATE clip SET split = given")
    sizes: tuple[tuple[Split, float], ...] = (("test", config.data.test_size), ("val", config.data.val_size))
    for number, (split, size) in enumerate(sizes):
        if not size:
            continue
        if catalog.number("SELECT COUNT(*) FROM clip WHERE split = ?", split):
            raise AnnotationError(
                f"{split}_size = {size:g}, but there are rows whose split is {split}: keep one of both"
            )
        share = _share_of_all(size, catalog, config)
        cut = cut_split(_count_by_unit(catalog), share, seed=config.train.seed + number, name=f"{split}_size")
        catalog.change(
            "UPDATE clip SET split = ? WHERE split = 'train' AND unit = (SELECT id FROM part WHERE name = ?)",
            ((split, name) for name in cut),
        )


def keep_same_content_together(catalog: Catalog, config: RunConfig) -> None:
    """Cuts splits again where groups share a video's content: no cut may put the same bytes into two splits."""
    shared = catalog.ask(
        "SELECT DISTINCT video.sha256, clip.part FROM clip JOIN video ON video.id = clip.video WHERE video.sha256 IN ("
        "SELECT video.sha256 FROM clip JOIN video ON video.id = clip.video GROUP BY 1 "
        "HAVING COUNT(DISTINCT clip.part) > 1)"
    )
    by_content: dict[str, list[int]] = defaultdict(list)
    for content, part in shared:
        by_content[content].append(part)
    joined = join_pairs((parts[0], other) for parts in by_content.values() for other in parts[1:])
    if joined and (config.data.test_size or config.data.val_size):
        catalog.change(
            "UPDATE clip SET unit = ? WHERE part = ?", ((parts[0], part) for parts in joined for part in parts)
        )
        assign_splits(catalog, config)


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
) -> None:
    rows = read_dataset(
        name,
        info,
        dataset_dir=config.data.dataset_dir,
        media_dir=config.data.media_dir,
        action_token=config.action_cls.action_token,
        problems=problems,
        special_tokens=special_tokens,
    )
    for row in rows:
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


def _count_by_unit(catalog: Catalog) -> Mapping[str, Counter[int]]:
    """Training rows of each label, by the name of what stays together."""
    counts: dict[str, Counter[int]] = defaultdict(Counter)
    found = catalog.ask(
        "SELECT part.name, clip.label, COUNT(*) FROM clip JOIN part ON part.id = clip.unit "
        "WHERE clip.split = 'train' GROUP BY 1, 2"
    )
    for name, label, number in found:
        counts[name][label] = number
    return counts


def _share_of_all(size: float, catalog: Catalog, config: RunConfig) -> float:
    """`val_size: 0.1` is a tenth of the data sets' rows, whether or not a test split was cut before."""
    names = config.data.dataset
    total = catalog.number(f"SELECT COUNT(*) FROM clip WHERE dataset IN ({', '.join('?' * len(names))})", *names)
    return max(1, round(size * total)) if size < 1 else size
