"""Cuts validation and test splits: groups stay whole, classes stay as balanced as groups allow."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from components.annotations import AnnotationError


@dataclass(frozen=True)
class Member:
    """What a cut needs to know of a row."""

    clip_id: str
    group: str
    label: int


def cut_split(members: Sequence[Member], size: float, *, seed: int, name: str) -> frozenset[str]:
    """Chooses whole groups of about `size` rows (a share below 1, else a number); returns their clip ids.

    Every class is cut by the same share, as far as groups allow, and keeps at least one group outside.

    Raises:
        AnnotationError: no group can be chosen, or `size` asks for all rows.
    """
    share = size if size < 1 else size / max(len(members), 1)
    if share >= 1:
        raise AnnotationError(f"{name} = {size:g} leaves no training row: there are {len(members)} rows to cut from")
    groups: dict[str, list[Member]] = defaultdict(list)
    for member in members:
        groups[member.group].append(member)
    chosen = _choose_groups({group: Counter(m.label for m in rows) for group, rows in groups.items()}, share, seed)
    if not chosen:
        raise AnnotationError(
            f"{name} = {size:g}: no group of the {len(groups)} can be spared, because each class must keep one in the "
            "training split: give rows a finer group, add data, or leave the split out"
        )
    return frozenset(member.clip_id for group in chosen for member in groups[group])


def _choose_groups(counts: Mapping[str, Counter[int]], share: float, seed: int) -> list[str]:
    """Takes groups in random order, those that bring the chosen rows nearer to `share` of each class and of all."""
    names = sorted(counts)
    random.Random(seed).shuffle(names)
    all_rows: Counter[int] = sum(counts.values(), Counter())
    missing = {label: share * number for label, number in all_rows.items()}
    groups_left = Counter(label for group in counts.values() for label in group)
    chosen: list[str] = []
    for name in names:
        group = counts[name]
        if any(groups_left[label] < 2 for label in group) or _gain(group, missing) <= 0:
            continue
        chosen.append(name)
        groups_left.subtract(dict.fromkeys(group, 1))
        for label, number in group.items():
            missing[label] -= number
    return chosen or _smallest_spare(names, counts, groups_left)


def _gain(group: Counter[int], missing: Mapping[int, float]) -> float:
    """How much nearer a group brings the chosen rows to their number, over the classes and in all."""
    by_class = sum(abs(missing[label]) - abs(missing[label] - number) for label, number in group.items())
    total = sum(missing.values())
    return by_class + abs(total) - abs(total - group.total())


def _smallest_spare(
    names: Sequence[str], counts: Mapping[str, Counter[int]], groups_left: Mapping[int, int]
) -> list[str]:
    """Where every group is larger than what is wanted: the smallest that no class needs."""
    spare = [name for name in names if all(groups_left[label] >= 2 for label in counts[name])]
    return [min(spare, key=lambda name: counts[name].total())] if spare else []
