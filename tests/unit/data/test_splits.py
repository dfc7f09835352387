import random
from collections import Counter

import pytest

from ivcp.data.problems import AnnotationError
from ivcp.data.splits import cut_split

Counts = dict[str, Counter[int]]


def groups(number: int, per_group: int, classes: int) -> Counts:
    """Rows of each label by group; labels go round over all rows."""
    return {
        f"group {group}": Counter((group * per_group + clip) % classes for clip in range(per_group))
        for group in range(number)
    }


def rows_in(counts: Counts, cut: frozenset[str]) -> Counter[int]:
    return sum((counts[group] for group in cut), Counter[int]())


@pytest.mark.parametrize("size", [0.2, 40.0])
def test_classes_stay_balanced(size: float) -> None:
    counts = groups(20, per_group=10, classes=5)
    assert rows_in(counts, cut_split(counts, size, seed=1, name="val_size")) == Counter(dict.fromkeys(range(5), 8))


def test_a_seed_gives_the_same_cut_whatever_the_order_of_rows() -> None:
    counts = groups(30, per_group=3, classes=4)
    turned = dict(reversed(counts.items()))
    assert cut_split(counts, 0.2, seed=7, name="x") == cut_split(turned, 0.2, seed=7, name="x")
    assert cut_split(counts, 0.2, seed=7, name="x") != cut_split(counts, 0.2, seed=8, name="x")


def test_few_clips_of_many_classes_are_still_cut() -> None:
    assert len(cut_split(groups(100, per_group=1, classes=50), 0.1, seed=0, name="x")) == 10


def test_every_class_keeps_a_group() -> None:
    counts = groups(10, per_group=4, classes=2) | {"only group of class 9": Counter({9: 1})}
    assert "only group of class 9" not in cut_split(counts, 0.5, seed=0, name="x")


def test_groups_larger_than_the_wanted_share() -> None:
    counts = groups(3, per_group=10, classes=2)
    assert rows_in(counts, cut_split(counts, 0.05, seed=0, name="x")).total() == 10
    with pytest.raises(AnnotationError, match=r"val_size = 0.5: no group of the 1 can be spared"):
        cut_split(groups(1, per_group=10, classes=2), 0.5, seed=0, name="val_size")
    with pytest.raises(AnnotationError, match="test_size = 30 leaves no training row"):
        cut_split(counts, 30, seed=0, name="test_size")


def test_rows_without_classes_are_not_told_of_classes() -> None:
    with pytest.raises(AnnotationError, match="because the training split must keep one: give rows a finer group"):
        cut_split({"all": Counter({0: 7})}, 0.5, seed=0, name="val_size")


def test_no_class_stays_empty_where_each_group_has_one_class() -> None:
    sizes = random.Random(0)
    counts = {f"{label} g{group}": Counter({label: sizes.randint(4, 7)}) for label in range(101) for group in range(18)}
    for seed in range(3):
        rows = rows_in(counts, cut_split(counts, 0.2, seed=seed, name="x"))
        whole = rows_in(counts, frozenset(counts))
        assert min(rows[label] / whole[label] for label in range(101)) >= 0.1
        assert rows.total() == pytest.approx(0.2 * whole.total(), rel=0.06)


def test_what_was_given_stays_and_new_groups_fill_what_is_missing() -> None:
    counts = groups(20, per_group=10, classes=5)
    first = cut_split(counts, 0.2, seed=1, name="x")
    settled = set(counts) - first
    more = counts | {f"new {group}": rows for group, rows in groups(20, per_group=10, classes=5).items()}
    second = cut_split(more, 0.2, seed=2, name="x", members=first, settled=settled)
    assert first < second
    assert not second & settled
    assert rows_in(more, second) == Counter(dict.fromkeys(range(5), 16))
    assert cut_split(more, 0.05, seed=1, name="x", members=first, settled=settled) == first


def test_a_split_for_which_nothing_is_left_says_what_an_earlier_run_gave() -> None:
    counts = groups(6, per_group=4, classes=2)
    with pytest.raises(AnnotationError, match=r"test_size = 0.2: 6 of the 6 groups were given .* resplit: true"):
        cut_split(counts, 0.2, seed=0, name="test_size", settled=counts)


def test_names_alone_nearly_decide() -> None:
    """Without the memory of an earlier cut, ten rows fewer change little: the cut follows from the names."""
    random_rows = random.Random(1)
    counts = {f"g{n}": Counter({random_rows.randrange(9): random_rows.randint(3, 6)}) for n in range(200)}
    fewer = {name: rows for name, rows in counts.items() if name not in ("g3", "g50", "g120")}
    for seed in range(5):
        before, after = (cut_split(some, 0.2, seed=seed, name="x") for some in (counts, fewer))
        assert len(after - before) <= 0.15 * len(after)
