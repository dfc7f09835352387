"""Which split each row belongs to: the one that its data set or the row names, that it was given before, or is cut."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ivcp import storage
from ivcp.data.problems import AnnotationError
from ivcp.data.splits import cut_split
from ivcp.records import SPLITS, Split, first_path
from ivcp.settings import DataConfig, RunConfig
from ivcp.validation.catalog import Catalog, read_video
from ivcp.validation.splits.folds import check_folds
from ivcp.validation.splits.kept import CONTENT_DIGITS, splits_uri
from ivcp.video.perceptual import join_pairs

log = logging.getLogger(__name__)
_NAMED = 5
_KEPT_BY_NAME = (
    "SELECT clip.unit, kept_group.place FROM clip JOIN part ON part.id = clip.part "
    "JOIN kept_group ON kept_group.name = part.name WHERE clip.given = 'train'"
)
_KIND = "COALESCE(class, desirable, 0)"
"""What all splits have the same share of: a class, or good and bad answers; without both, all rows are of one kind."""
_VIDEOS = "clip JOIN clip_video ON clip_video.clip = clip.id JOIN video ON video.id = clip_video.video"
_KEPT_BY_CONTENT = (
    f"SELECT clip.unit, kept_content.place FROM {_VIDEOS} "
    f"JOIN kept_content ON kept_content.content = substr(video.sha256, 1, {CONTENT_DIGITS}) WHERE clip.given = 'train'"
)


@dataclass(frozen=True)
class _Units:
    """What stays together in one split: a group, or several that share a video's content; by its first name."""

    ids: dict[str, int]
    """Its number in the catalog."""
    counts: dict[str, Counter[int]]
    """Its rows of each kind (`_KIND`) that no data set and no row names a split for."""
    kept: dict[str, Split]
    """What an earlier run gave it."""

    def without(self, split: Split, splits: Mapping[str, Split]) -> dict[str, Counter[int]]:
        """The counts of those that `splits` does not have in `split`."""
        return {name: rows for name, rows in self.counts.items() if splits.get(name) != split}


def assign_splits(catalog: Catalog, config: RunConfig) -> None:
    """The split that the data set is named for, or that the row names, or that was or is given to the row's group.

    Raises:
        AnnotationError: a split is asked for that is there already, or that cannot be cut; or there are too few groups
            for folds, which are made of what is prepared: no split is cut for them, and none is kept.
    """
    _name_groups_from_the_data_folder(catalog, config.data)
    catalog.ask("UPDATE clip SET split = given")
    if config.protocol.folds:
        check_folds(catalog, config.protocol.folds)
        _check_named_once(catalog, "val", size=config.data.val_size, members=[], data=config.data)
        return
    units = _read_units(catalog, resplit=config.data.resplit)
    splits = _cut(units, catalog, config)
    catalog.change(
        "UPDATE clip SET split = ? WHERE given = 'train' AND unit = ?",
        ((split, units.ids[name]) for name, split in splits.items() if split != "train"),
    )
    _check_every_class_trains(catalog, units, config.data)


def keep_same_content_together(catalog: Catalog, config: RunConfig) -> None:
    """Assigns splits again now that the videos' content is known: the same bytes get into one split.

    That holds for groups of this run, and for a video whose group had another name when it was given a split.

    Raises:
        AnnotationError: as `assign_splits`.
    """
    shared = catalog.ask(
        f"SELECT DISTINCT video.sha256, clip.part FROM {_VIDEOS} WHERE video.sha256 IN ("
        f"SELECT video.sha256 FROM {_VIDEOS} GROUP BY 1 "
        "HAVING COUNT(DISTINCT clip.part) > 1)"
    )
    by_content: dict[str, list[int]] = defaultdict(list)
    for content, part in shared:
        by_content[content].append(part)
    joined = join_pairs((parts[0], other) for parts in by_content.values() for other in parts[1:])
    catalog.change("UPDATE clip SET unit = ? WHERE part = ?", ((parts[0], part) for parts in joined for part in parts))
    assign_splits(catalog, config)
    if not config.protocol.folds:
        _log_what_was_kept(catalog, config)


def _name_groups_from_the_data_folder(catalog: Catalog, data: DataConfig) -> None:
    """Groups that are named after their video lose the folder of the data: they are the same wherever that lies."""
    folder = data.media_dir or data.dataset_dir
    prefix = (folder if storage.is_s3(folder) else str(Path(folder).absolute())).rstrip("/") + "/"
    catalog.ask(
        "UPDATE OR IGNORE part SET name = substr(name, ?) WHERE substr(name, 1, ?) = ?",
        *(len(prefix) + 1, len(prefix), prefix),
    )


def _read_units(catalog: Catalog, *, resplit: bool) -> _Units:
    names = dict(
        catalog.ask(
            "SELECT clip.unit, MIN(part.name) FROM clip JOIN part ON part.id = clip.part "
            "WHERE clip.given = 'train' GROUP BY 1"
        )
    )
    counts: dict[str, Counter[int]] = defaultdict(Counter)
    for unit, label, number in catalog.ask(
        f"SELECT unit, {_KIND}, COUNT(*) FROM {catalog.classes_of_clips} WHERE given = 'train' GROUP BY 1, 2"
    ):
        counts[names[unit]][label] = number
    places: dict[str, int] = {}
    for query in () if resplit else (_KEPT_BY_NAME, _KEPT_BY_CONTENT):
        for unit, place in catalog.ask(f"SELECT unit, MIN(place) FROM ({query}) GROUP BY 1"):
            places[names[unit]] = min(place, places.get(names[unit], place))
    ids = {name: unit for unit, name in names.items()}
    return _Units(ids, counts, {name: SPLITS[place] for name, place in places.items()})


def _cut(units: _Units, catalog: Catalog, config: RunConfig) -> dict[str, Split]:
    """The split of each unit that has one: what was kept, and what is cut from the others."""
    data, splits, classes_per_clip = config.data, dict(units.kept), _classes_per_clip(catalog)
    sizes: tuple[tuple[Split, Split, float], ...] = (("test", "val", data.test_size), ("val", "test", data.val_size))
    for split, other, size in sizes:
        members = [name for name, kept in units.kept.items() if kept == split]
        _check_named_once(catalog, split, size=size, members=members, data=data)
        if not size:
            continue
        chosen = cut_split(
            units.without(other, splits),
            _share_of_all(size, catalog, data) * classes_per_clip,
            seed=config.data_seed,
            name=f"{split}_size",
            asked=size,
            members=members,
            settled=[name for name, kept in units.kept.items() if kept == "train"],
        )
        splits |= dict.fromkeys(chosen, split)
    return splits


def _classes_per_clip(catalog: Catalog) -> float:
    """How often a clip counts, on average: once for each class that it has."""
    count = "SELECT COUNT(*) FROM {} WHERE given = 'train'"
    num_clips = catalog.number(count.format("clip"))
    counted = catalog.number(count.format(catalog.classes_of_clips))
    return counted / num_clips if counted != num_clips else 1


def _check_named_once(catalog: Catalog, split: Split, *, size: float, members: list[str], data: DataConfig) -> None:
    if not catalog.number("SELECT COUNT(*) FROM clip WHERE given = ?", split):
        return
    if size:
        raise AnnotationError(f"{split}_size = {size:g}, but there are rows whose split is {split}: keep one of both")
    if members:
        raise AnnotationError(
            f"there are rows whose split is {split}, and {len(members)} groups of the other rows were given to {split} "
            f"by an earlier run ({_shortened(members)}): both together would be another {split} split. Set resplit: "
            f"true to give these groups anew, or remove the named {split} split. {splits_uri(data)} has what was given"
        )


def _check_every_class_trains(catalog: Catalog, units: _Units, data: DataConfig) -> None:
    """Says why a class has no training row where that is because its groups were given to other splits before."""
    if not units.kept:
        return
    lost = catalog.ask(
        f"SELECT {_KIND} FROM {catalog.classes_of_clips} WHERE given = 'train' GROUP BY 1 "
        "HAVING SUM(split = 'train') = 0 ORDER BY 1"
    )
    labels = {label for (label,) in lost}
    if labels:
        groups = [name for name, rows in units.counts.items() if labels & rows.keys()]
        has_classes, has_tags = catalog.ask("SELECT COUNT(label), COUNT(desirable) FROM clip").fetchone()
        kinds = "classes have rows only" if has_classes else "tags have rows only"
        what = f"{len(labels)} {kinds}" if has_classes or has_tags else "all rows are"
        raise AnnotationError(
            f"{what} in groups that an earlier run gave to val or test "
            f"({_shortened(groups)}), and none to train on: add rows of other groups, or set resplit: true to give all "
            f"groups anew. {splits_uri(data)} has what was given"
        )


def _share_of_all(size: float, catalog: Catalog, data: DataConfig) -> float:
    """`val_size: 0.1` is a tenth of the data sets' rows, whether or not a test split was cut before."""
    names = data.dataset
    total = catalog.number(f"SELECT COUNT(*) FROM clip WHERE dataset IN ({', '.join('?' * len(names))})", *names)
    return max(1, round(size * total)) if size < 1 else size


def _log_what_was_kept(catalog: Catalog, config: RunConfig) -> None:
    data = config.data
    kept = catalog.number(
        "SELECT COUNT(DISTINCT part.name) FROM clip JOIN part ON part.id = clip.part "
        "JOIN kept_group ON kept_group.name = part.name WHERE clip.given = 'train'"
    )
    if not kept or data.resplit:
        return
    new = catalog.number("SELECT COUNT(DISTINCT part) FROM clip WHERE given = 'train'") - kept
    rows = dict(catalog.ask("SELECT split, COUNT(*) FROM clip WHERE given = 'train' GROUP BY 1"))
    asked = {"test": data.test_size, "val": data.val_size}
    sizes = ", ".join(
        f"{split} has {rows.get(split, 0)} rows ({split}_size asks for "
        f"{_share_of_all(size, catalog, data) if size else 0:g})"
        for split, size in asked.items()
        if size or rows.get(split)
    )
    log.info(
        "%d groups are in the split that an earlier run gave them, whatever seed and sizes are now; %d are new%s",
        kept, new, f"; {sizes}" if sizes else "",
    )  # fmt: skip
    _warn_of_moved(catalog)


def _warn_of_moved(catalog: Catalog) -> None:
    """Names the videos that get into training though an earlier run gave them to another split."""
    moved = [
        first_path(read_video(name))
        for (name,) in catalog.ask(
            f"SELECT DISTINCT video.name FROM {_VIDEOS} "
            f"LEFT JOIN kept_content ON kept_content.content = substr(video.sha256, 1, {CONTENT_DIGITS}) "
            "JOIN part ON part.id = clip.part LEFT JOIN kept_group ON kept_group.name = part.name "
            "WHERE clip.given = 'train' AND clip.split = 'train' "
            "AND COALESCE(kept_content.place, kept_group.place) > 0 ORDER BY clip.id"
        )
    ]
    if moved:
        log.warning(
            "%d videos that an earlier run gave to val or test, alone or with their group, get into training: %s. "
            "Their groups now have the name of a training group, or share a video with one. If that is not meant, give "
            "the groups the names that they had",
            *(len(moved), ", ".join(moved[:_NAMED]) + (", …" if len(moved) > _NAMED else "")),
        )


def _shortened(names: list[str]) -> str:
    return ", ".join(sorted(names)[:_NAMED]) + (", …" if len(names) > _NAMED else "")
