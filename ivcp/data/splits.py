"""Cuts validation and test splits: groups stay together, classes stay as balanced as groups allow."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence

from ivcp.data.registry import AnnotationError

_TRIES = 20


class _Cut:
    """Groups chosen so far, and what is still missing of the share of each class and of all rows."""

    def __init__(self, counts: Mapping[str, Counter[int]], share: float) -> None:
        self.groups: list[str] = []
        self._counts = counts
        rows = Counter[int]()
        for group in counts.values():
            rows.update(group)
        self._wanted = {label: share * number for label, number in rows.items()}
        self._missing = dict(self._wanted)
        self._missing_in_all = share * rows.total()
        self._groups_left = Counter(label for group in counts.values() for label in group)

    @property
    def distance(self) -> float:
        """Rows that are missing or too many, over the classes and in all."""
        return sum(map(abs, self._missing.values())) + abs(self._missing_in_all)

    def can_spare(self, name: str) -> bool:
        """Whether each class of the group keeps another one outside."""
        return all(self._groups_left[label] >= 2 for label in self._counts[name])

    def brings_classes_nearer(self, name: str) -> float:
        """By how many rows the group brings its classes nearer to their share."""
        return sum(_nearer(self._missing[label], number) for label, number in self._counts[name].items())

    def brings_all_nearer(self, name: str) -> float:
        return _nearer(self._missing_in_all, self._counts[name].total())

    def fills_a_class(self, name: str) -> bool:
        """Whether the group fits into what is missing of a class that has less than half of its share."""
        return any(
            number < self._missing[label] and self._wanted[label] / 2 < self._missing[label]
            for label, number in self._counts[name].items()
        )

    def take(self, name: str) -> None:
        group = self._counts[name]
        self.groups.append(name)
        self._groups_left.subtract(group.keys())
        self._missing_in_all -= group.total()
        for label, number in group.items():
            self._missing[label] -= number


def _nearer(missing: float, number: int) -> float:
    return abs(missing) - abs(missing - number)


def cut_split(counts: Mapping[str, Counter[int]], size: float, *, seed: int, name: str) -> frozenset[str]:
    """Chooses whole groups of about `size` rows (a share below 1, else a number).

    `counts` are the rows of each label, by group. Every class is cut by the same share, as far as groups allow, and
    keeps at least one group outside; where a class would get less than half of its share, the sum grows over `size`.

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
    return min(tries, key=lambda cut: (cut.distance, -len(cut.groups))).groups or _smallest_spare(names, counts)


def _take_in_order(names: Sequence[str], counts: Mapping[str, Counter[int]], share: float) -> _Cut:
    """Takes each group that brings the classes and the sum of all rows nearer to the share.

    The sum may be reached before some class has its part: groups that fill such a class are taken whatever the sum.
    """
    cut = _Cut(counts, share)
    for name in names:
        if cut.can_spare(name) and cut.brings_classes_nearer(name) + cut.brings_all_nearer(name) > 0:
            cut.take(name)
    taken = set(cut.groups)
    for name in names:
        if (
            name not in taken
            and cut.can_spare(name)
            and cut.fills_a_class(name)
            and cut.brings_classes_nearer(name) > 0
        ):
            cut.take(name)
    return cut


def _smallest_spare(names: Sequence[str], counts: Mapping[str, Counter[int]]) -> list[str]:
    """Where every group is larger than what is wanted: the smallest that no class needs."""
    num_groups = Counter(label for group in counts.values() for label in group)
    spare = [name for name in names if all(num_groups[label] >= 2 for label in counts[name])]
    return [min(spare, key=lambda name: counts[name].total())] if spare else []
