"""Cuts validation and test splits: groups stay whole, classes stay as balanced as groups allow."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from components.annotations import AnnotationError

_TRIES = 20


@dataclass(frozen=True)
class _Taken:
    groups: list[str]
    distance: float
    """Rows that are missing or too many, over the classes and in all."""


def cut_split(counts: Mapping[str, Counter[int]], size: float, *, seed: int, name: str) -> frozenset[str]:
    """Chooses whole groups of about `size` rows (a share below 1, else a number).

    `counts` are the rows of each label, by group. Every class is cut by the same share, as far as groups allow, and
    keeps at least one group outside.

    Raises:
        AnnotationError: no group can be chosen, or `size` asks for all rows.
    """
    num_rows = sum(group.total() for group in counts.values())
    share = size if size < 1 else size / max(num_rows, 1)
    if share >= 1:
        raise AnnotationError(f"{name} = {size:g} leaves no training row: there are {num_rows} rows to cut from")
    chosen = _choose_groups(counts, share, seed)
    if not chosen:
        raise AnnotationError(
            f"{name} = {size:g}: no group of the {len(counts)} can be spared, because each class must keep one in the "
            "training split: give rows a finer group, add data, or leave the split out"
        )
    return frozenset(chosen)


def _choose_groups(counts: Mapping[str, Counter[int]], share: float, seed: int) -> list[str]:
    """The best of several random orders: nearest to `share` of each class and of all rows, then of most groups."""
    names = sorted(counts)
    tries = []
    for attempt in range(_TRIES):
        random.Random(seed * _TRIES + attempt).shuffle(names)
        tries.append(_take_in_order(names, counts, share))
    return min(tries, key=lambda taken: (taken.distance, -len(taken.groups))).groups or _smallest_spare(names, counts)


def _take_in_order(names: Sequence[str], counts: Mapping[str, Counter[int]], share: float) -> _Taken:
    """Takes each group that brings the chosen rows nearer to what is wanted and that every class can spare.

    What is wanted is the share of each class and of all rows; then, whatever the sum, half of its share for each class
    into whose share a group fits.
    """
    rows, groups_left = Counter[int](), Counter[int]()
    for group in counts.values():
        rows.update(group)
        groups_left.update(group.keys())
    missing = {label: share * number for label, number in rows.items()}
    missing_in_all = share * rows.total()
    taken: dict[str, None] = {}
    for fills_classes in (False, True):
        for name in names:
            group = counts[name]
            if name in taken or any(groups_left[label] < 2 for label in group):
                continue
            nearer = sum(abs(missing[label]) - abs(missing[label] - number) for label, number in group.items())
            if not fills_classes:
                nearer += abs(missing_in_all) - abs(missing_in_all - group.total())
            elif not any(max(number, share * rows[label] / 2) < missing[label] for label, number in group.items()):
                continue
            if nearer <= 0:
                continue
            taken[name] = None
            groups_left.subtract(group.keys())
            missing_in_all -= group.total()
            for label, number in group.items():
                missing[label] -= number
    return _Taken(list(taken), sum(map(abs, missing.values())) + abs(missing_in_all))


def _smallest_spare(names: Sequence[str], counts: Mapping[str, Counter[int]]) -> list[str]:
    """Where every group is larger than what is wanted: the smallest that no class needs."""
    num_groups = Counter(label for group in counts.values() for label in group)
    spare = [name for name in names if all(num_groups[label] >= 2 for label in counts[name])]
    return [min(spare, key=lambda name: counts[name].total())] if spare else []
