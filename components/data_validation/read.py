"""All annotations of a run: data sets, labels and splits together."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from components.annotations import AnnotatedRow, AnnotationError, Problems, read_dataset
from components.artifacts import Labels, Split
from components.config import RunConfig
from components.data_validation.labels import check_every_class_is_trained, resolve_labels
from components.data_validation.splits import Member, cut_split
from components.dataset_registry import DatasetInfo, read_dataset_info


@dataclass(frozen=True)
class Annotations:
    """The rows of a run with their labels and splits, before their videos were looked at."""

    labels: Labels
    rows: tuple[AnnotatedRow, ...]
    label_of: dict[str, int]
    """By clip id."""
    split_of: dict[str, Split]
    """By clip id."""


def read_annotations(config: RunConfig) -> Annotations:
    """Reads all data sets of a run.

    Raises:
        AnnotationError: something is wrong with them; the message names everything that was found.
    """
    names = _names_by_split(config)
    infos = {name: read_dataset_info(name, config.data.dataset_dir) for name in names}
    problems = Problems()
    rows = [row for name, info in infos.items() for row in _sampled_rows(name, info, config, problems)]
    if not rows:
        problems.raise_if_any()
    labels, label_of = resolve_labels(
        rows,
        infos,
        dataset_dir=config.data.dataset_dir,
        num_action_classes=config.method.num_action_classes,
        problems=problems,
    )
    problems.raise_if_any()
    split_of = _split(rows, label_of, names, config)
    check_every_class_is_trained(labels, (label_of[row.clip_id] for row in rows if split_of[row.clip_id] == "train"))
    return Annotations(labels, tuple(rows), label_of, split_of)


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


def _sampled_rows(name: str, info: DatasetInfo, config: RunConfig, problems: Problems) -> list[AnnotatedRow]:
    found = read_dataset(
        name,
        info,
        dataset_dir=config.data.dataset_dir,
        media_dir=config.data.media_dir,
        action_token=config.method.action_token,
        problems=problems,
    )
    rows = list(found)
    for limit in (info.num_samples, config.data.max_samples):
        if limit is not None and limit < len(rows):
            kept = random.Random(f"{config.train.seed}:{name}").sample(range(len(rows)), limit)
            rows = [rows[number] for number in sorted(kept)]
    return rows


def _split(
    rows: Sequence[AnnotatedRow], label_of: dict[str, int], names: dict[str, Split], config: RunConfig
) -> dict[str, Split]:
    """The split that the data set is named for, or that the row names, or that is cut from the training rows."""
    split_of: dict[str, Split] = {
        row.clip_id: (row.split or "train") if names[row.dataset] == "train" else names[row.dataset] for row in rows
    }
    sizes: tuple[tuple[Split, float], ...] = (("test", config.data.test_size), ("val", config.data.val_size))
    for number, (split, size) in enumerate(sizes):
        if not size:
            continue
        if split in split_of.values():
            raise AnnotationError(
                f"{split}_size = {size:g}, but there are rows whose split is {split}: keep one of both"
            )
        share = _share_of_all(size, rows, names)
        members = [Member(r.clip_id, r.group, label_of[r.clip_id]) for r in rows if split_of[r.clip_id] == "train"]
        cut = cut_split(members, share, seed=config.train.seed + number, name=f"{split}_size")
        split_of.update(dict.fromkeys(cut, split))
    return split_of


def _share_of_all(size: float, rows: Sequence[AnnotatedRow], names: dict[str, Split]) -> float:
    """`val_size: 0.1` is a tenth of the data sets' rows, whether or not a test split was cut before."""
    total = sum(1 for row in rows if names[row.dataset] == "train")
    return max(1, round(size * total)) if size < 1 else size
