"""Duplicates, contradicting labels and leaks between splits, among the clips that can be used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ivcp.records import SPLITS, Labels, Split, first_path
from ivcp.records.validation import Duplicate, Leak, NearDuplicate
from ivcp.validation.catalog import Catalog, read_video
from ivcp.validation.report.contradictions import SAME_ANSWER, note_contradicting_looks
from ivcp.validation.rows.targets import target_names
from ivcp.video.perceptual import join_pairs, similar_pairs

_NAMED = 20
"""Clips, videos and groups that one finding names."""
_USABLE = (
    "clip JOIN clip_video ON clip_video.clip = clip.id JOIN video ON video.id = clip_video.video "
    "WHERE clip.reason IS NULL"
)
_ALIKE = (  # CROSS keeps SQLite from beginning with all videos
    "alike CROSS JOIN video AS compared ON compared.id = alike.video CROSS JOIN video "
    "ON video.sha256 = compared.sha256 CROSS JOIN clip_video ON clip_video.video = video.id "
    "CROSS JOIN clip ON clip.id = clip_video.clip WHERE clip.reason IS NULL"
)
_GROUP = "(SELECT name FROM part WHERE part.id = clip.part)"
_SPLIT_COUNTS = ", ".join(f"COUNT(DISTINCT CASE clip.split WHEN '{split}' THEN clip.id END)" for split in SPLITS)


@dataclass(frozen=True)
class Duplicates:
    """Clips with the same content and span."""

    number: int
    num_conflicts: int
    """Those with several labels; without classes, those whose text has several tags, which are no duplicates."""
    examples: tuple[Duplicate, ...]


@dataclass(frozen=True)
class Leaks:
    """Contents and groups that stand in several splits."""

    number: int
    examples: tuple[Leak, ...]


@dataclass(frozen=True)
class NearDuplicates:
    """Sets of videos that look alike."""

    number: int
    num_leaks: int
    """Those in several splits."""
    num_in_groups: int
    """Sets that lie within one group: not counted in `number`."""
    num_uniform: int
    """Videos that were not compared."""
    examples: tuple[NearDuplicate, ...]


def find_duplicates(catalog: Catalog, labels: Labels | None, *, most: int) -> Duplicates:
    """Clips with the same content of their videos and the same span; without classes, with the same text as well.

    A video that is asked about in several ways is nothing unusual.
    """
    keys = ("content", "start", "stop") if labels else SAME_ANSWER
    tag = "label" if labels else "desirable"
    same = f"FROM clip WHERE reason IS NULL GROUP BY {', '.join(keys)} HAVING COUNT(*) > 1"
    num_conflicts = catalog.number(f"SELECT COUNT(*) FROM (SELECT 1 {same} AND COUNT(DISTINCT {tag}) > 1)")
    if not labels:
        same += " AND COUNT(DISTINCT desirable) < 2"
    number = catalog.number(f"SELECT COUNT(*) FROM (SELECT 1 {same})")
    found = catalog.ask(
        f"SELECT COUNT(*), {', '.join(keys)} {same} ORDER BY COUNT(DISTINCT label) DESC, MIN(id) LIMIT ?",
        most,
    ).fetchall()
    which = " AND ".join(f"{key} IS ?" for key in keys)
    examples = (_describe(catalog, labels, which, values, num_clips=count) for count, *values in found)
    return Duplicates(number, num_conflicts, tuple(examples))


def _describe(
    catalog: Catalog, labels: Labels | None, which: str, values: Sequence[Any], *, num_clips: int
) -> Duplicate:
    same = f"clip WHERE reason IS NULL AND {which}"
    named = catalog.ask(
        f"SELECT dataset, row, (SELECT name FROM video WHERE video.id = clip.video) FROM {same} "
        f"ORDER BY id LIMIT {_NAMED}",
        *values,
    ).fetchall()
    splits = {split for (split,) in catalog.ask(f"SELECT DISTINCT split FROM {same}", *values)}
    found = catalog.ask(f"SELECT label FROM {same} GROUP BY label ORDER BY MIN(id)", *values)
    return Duplicate(
        num_clips=num_clips,
        clip_ids=tuple(f"{dataset}:{row}" for dataset, row, _ in named),
        videos=tuple(dict.fromkeys(first_path(read_video(name)) for _, _, name in named if name is not None)),
        splits=tuple(split for split in SPLITS if split in splits),
        label_names=_names(catalog, labels, [label for (label,) in found]),
    )


def find_leaks(catalog: Catalog, *, most: int) -> Leaks:
    """Video contents and groups that stand in several splits."""
    contents = _leaks(catalog, "content", _USABLE, "video.sha256", "video.name", most)
    groups = _leaks(catalog, "group", "clip WHERE clip.reason IS NULL", "clip.part", _GROUP, most)
    return Leaks(contents.number + groups.number, contents.examples + groups.examples)


def _leaks(catalog: Catalog, kind: str, usable: str, key: str, name: str, most: int) -> Leaks:
    in_several = f"SELECT {key} FROM {usable} GROUP BY 1 HAVING COUNT(DISTINCT split) > 1"
    number = catalog.number(f"SELECT COUNT(*) FROM ({in_several})")
    found = catalog.ask(
        f"SELECT {name}, MIN(clip.id), {_SPLIT_COUNTS} FROM {usable} GROUP BY {key} "
        "HAVING COUNT(DISTINCT split) > 1 ORDER BY 2 LIMIT ?",
        most,
    )
    examples = tuple(
        Leak(
            kind="content" if kind == "content" else "group",
            name=first_path(read_video(text)) if kind == "content" else text,
            num_clips=_by_split(counts),
        )
        for text, _, *counts in found
    )
    return Leaks(number, examples)


def find_near_duplicates(
    catalog: Catalog, labels: Labels | None, *, num_looks: int, distance: float, most: int
) -> NearDuplicates:
    """Sets of videos whose looked-at frames differ in at most `distance` of 64 bits on average.

    Each video of a set is like at least one of the others. Sets whose clips contradict each other are not counted: see
    `find_contradictions`.
    """
    if not num_looks:
        return NearDuplicates(0, 0, 0, 0, ())
    usable = f"FROM {_USABLE} AND LENGTH(looks) = {8 * num_looks} GROUP BY sha256"
    uniform = catalog.number(f"SELECT COUNT(DISTINCT video.id) FROM {_USABLE} AND LENGTH(looks) = 0")
    count = catalog.number(f"SELECT COUNT(*) FROM (SELECT 1 {usable})")
    ids, hashes = np.empty(count, dtype=np.int64), np.empty((count, num_looks), dtype=np.uint64)
    for place, (number, looks) in enumerate(catalog.ask(f"SELECT MIN(video.id), looks {usable} ORDER BY 1")):
        ids[place], hashes[place] = number, np.frombuffer(looks, dtype=np.uint64)
    sets = join_pairs(similar_pairs(hashes, int(distance * num_looks)))
    catalog.change(
        "INSERT INTO alike VALUES (?, ?)",
        ((number, int(ids[place])) for number, places in enumerate(sets) for place in places),
    )
    if labels is not None and labels.kind != "value":  # numbers of videos that look alike may well differ a little
        note_contradicting_looks(catalog)
    # Videos with the same bytes were compared once: their clips count, too.
    counted = (
        f"SELECT alike.number AS number, COUNT(DISTINCT clip.split) AS splits, {_SPLIT_COUNTS} "
        f"FROM {_ALIKE} AND alike.number NOT IN (SELECT number FROM contradicting) GROUP BY 1 "
        "HAVING COUNT(DISTINCT clip.part) > 1"
    )
    across = catalog.number(f"SELECT COUNT(*) FROM ({counted})")
    leaks = catalog.number(f"SELECT COUNT(*) FROM ({counted}) WHERE splits > 1")
    examples = catalog.ask(f"SELECT * FROM ({counted}) ORDER BY splits DESC, number LIMIT ?", most).fetchall()
    return NearDuplicates(
        number=across,
        num_leaks=leaks,
        num_in_groups=len(sets) - across - catalog.number("SELECT COUNT(*) FROM contradicting"),
        num_uniform=uniform,
        examples=tuple(_describe_alike(catalog, labels, number, counts) for number, _, *counts in examples),
    )


def _describe_alike(catalog: Catalog, labels: Labels | None, number: int, counts: Sequence[int]) -> NearDuplicate:
    def ask(column: str, limit: int = -1) -> list[Any]:
        found = catalog.ask(
            f"SELECT {column} FROM {_ALIKE} AND alike.number = ? GROUP BY 1 ORDER BY MIN(clip.id) LIMIT ?",
            number,
            limit,
        )
        return [value for (value,) in found]

    return NearDuplicate(
        num_videos=len(ask("video.id")),
        videos=tuple(first_path(read_video(name)) for name in ask("video.name", _NAMED)),
        num_clips=_by_split(counts),
        groups=tuple(ask(_GROUP, _NAMED)),
        label_names=_names(catalog, labels, ask("clip.label")),
    )


def _by_split(counts: Sequence[int]) -> dict[Split, int]:
    return {split: count for split, count in zip(SPLITS, counts, strict=True) if count}


def _names(catalog: Catalog, labels: Labels | None, found: Sequence[int]) -> tuple[str, ...]:
    if labels is None:
        return ()
    names = target_names(catalog, labels)
    return tuple(names[label] for label in found)
