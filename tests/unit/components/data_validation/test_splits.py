from collections import Counter

import pytest

from components.annotations import AnnotationError
from components.data_validation.splits import Member, cut_split


def members(groups: int, per_group: int, classes: int) -> list[Member]:
    return [
        Member(f"{group}:{clip}", f"group {group}", (group * per_group + clip) % classes)
        for group in range(groups)
        for clip in range(per_group)
    ]


@pytest.mark.parametrize("size", [0.2, 40.0])
def test_groups_stay_whole_and_classes_balanced(size: float) -> None:
    rows = members(groups=20, per_group=10, classes=5)
    cut = cut_split(rows, size, seed=1, name="val_size")
    assert len(cut) == 40
    inside = {row.group for row in rows if row.clip_id in cut}
    outside = {row.group for row in rows if row.clip_id not in cut}
    assert not inside & outside
    assert set(Counter(row.label for row in rows if row.clip_id in cut).values()) == {8}


def test_a_seed_gives_the_same_cut_whatever_the_order_of_rows() -> None:
    rows = members(groups=30, per_group=3, classes=4)
    assert cut_split(rows, 0.2, seed=7, name="x") == cut_split(rows[::-1], 0.2, seed=7, name="x")
    assert cut_split(rows, 0.2, seed=7, name="x") != cut_split(rows, 0.2, seed=8, name="x")


def test_few_clips_of_many_classes_are_still_cut() -> None:
    assert len(cut_split(members(groups=100, per_group=1, classes=50), 0.1, seed=0, name="x")) == 10


def test_every_class_keeps_a_group() -> None:
    rows = [*members(groups=10, per_group=4, classes=2), Member("rare", "only group of class 9", 9)]
    assert "rare" not in cut_split(rows, 0.5, seed=0, name="x")


def test_groups_larger_than_the_wanted_share() -> None:
    rows = members(groups=3, per_group=10, classes=2)
    assert len(cut_split(rows, 0.05, seed=0, name="x")) == 10
    with pytest.raises(AnnotationError, match=r"val_size = 0.5: no group of the 1 can be spared"):
        cut_split(members(groups=1, per_group=10, classes=2), 0.5, seed=0, name="val_size")
    with pytest.raises(AnnotationError, match="test_size = 30 leaves no training row"):
        cut_split(rows, 30, seed=0, name="test_size")
