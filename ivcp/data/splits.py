"""Cuts validation and test splits: groups stay together, classes stay as balanced as groups allow.

Which groups are taken follows from their names and the seed: each has a rank of its own, and a split is filled from the
lowest rank on. A group that was given a split before keeps it, and counts for what is still missing.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from ivcp.data.problems import AnnotationError


class _Cut:
    """Groups in a split so far, and what is still missing of the share of each class and of all rows."""

    def __init__(self, counts: Mapping[str, Counter[int]], share: float, *, trained: Collection[str]) -> None:
        self.groups: list[str] = []
        self._counts = counts
        rows = Counter[int]()
        for group in counts.values():
            rows.update(group)
        self._wanted = {label: share * number for label, number in rows.items()}
        self._missing = dict(self._wanted)
        self._missing_in_all = share * rows.total()
        self._groups_left = Counter(label for name in trained for label in counts[name])

    def can_spare(self, name: str) -> bool:
        """Whether each class of the group keeps another one in the training split."""
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
        """A group of the training split gets into this one."""
        self._groups_left.subtract(self._counts[name].keys())
        self.count(name)

    def count(self, name: str) -> None:
        """A group is in this split."""
        self.groups.append(name)
        self._missing_in_all -= self._counts[name].total()
        for label, number in self._counts[name].items():
            self._missing[label] -= number


def _nearer(missing: float, number: int) -> float:
    return abs(missing) - abs(missing - number)


def cut_split(
    counts: Mapping[str, Counter[int]],
    size: float,
    *,
    seed: int,
    name: str,
    asked: float | None = None,
    members: Collection[str] = (),
    settled: Collection[str] = (),
) -> frozenset[str]:
    """Chooses whole groups of about `size` rows (a share below 1, else a number), those of `members` among them.

    `counts` are the rows of each label, by group, of this split and of the training split together. `members` are in
    this split already, `settled` in the training split: both stay. `asked` is `size` as the settings have it, for
    messages. Every class is cut by the same share, as far as groups allow, and keeps at least one group outside; where
    a class would get less than half of its share, the sum grows over `size`.

    Raises:
        AnnotationError: no group can be chosen, or `size` asks for all rows.
    """
    num_rows = sum(group.total() for group in counts.values())
    share = size if size < 1 else size / max(num_rows, 1)
    if share >= 1:
        raise AnnotationError(
            f"{name} = {asked or size:g} leaves no training row: there are {num_rows} rows to cut from"
        )
    new = sorted(set(counts) - {*members, *settled}, key=lambda group: rank(group, seed=seed, name=name))
    cut = _Cut(counts, share, trained=set(counts) - set(members))
    for group in members:
        cut.count(group)
    _take_in_order(new, cut)
    chosen = cut.groups or _smallest_spare(new, counts, cut)
    if not chosen:
        raise AnnotationError(_explain_empty(counts, settled, name=f"{name} = {asked or size:g}"))
    return frozenset(chosen)


def rank(group: str, *, seed: int, name: str) -> bytes:
    """Where a group stands among all that may get into the split `name`: lower ones come first."""
    return hashlib.blake2b(f"{seed}\n{name}\n{group}".encode(), digest_size=16).digest()


def _take_in_order(names: Sequence[str], cut: _Cut) -> None:
    """Takes each group that brings the classes and the sum of all rows nearer to the share.

    The sum may be reached before some class has its part: groups that fill such a class are taken whatever the sum.
    """
    left = []
    for name in names:
        if cut.can_spare(name) and cut.brings_classes_nearer(name) + cut.brings_all_nearer(name) > 0:
            cut.take(name)
        else:
            left.append(name)
    for name in left:
        if cut.can_spare(name) and cut.fills_a_class(name) and cut.brings_classes_nearer(name) > 0:
            cut.take(name)


def _smallest_spare(names: Sequence[str], counts: Mapping[str, Counter[int]], cut: _Cut) -> list[str]:
    """Where every group is larger than what is wanted: the smallest that no class needs."""
    spare = [name for name in names if cut.can_spare(name)]
    return [min(spare, key=lambda name: counts[name].total())] if spare else []


def _explain_empty(counts: Mapping[str, Counter[int]], settled: Collection[str], *, name: str) -> str:
    classes = {label for rows in counts.values() for label in rows}
    kept = "each class must keep one in the training split" if len(classes) > 1 else "the training split must keep one"
    if not settled:
        return (
            f"{name}: no group of the {len(counts)} can be spared, because {kept}: give rows a finer group, add data, "
            "or leave the split out"
        )
    return (
        f"{name}: {len(settled)} of the {len(counts)} groups were given to the training split by an earlier run, and "
        "stay there: nothing is moved, or a model that was trained on them would be measured on what it has seen. Of "
        f"the others none can be spared, because {kept}. Add rows of new groups, or set resplit: true to give all "
        "groups anew, and train anew"
    )
