from collections import Counter

import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold

from ivcp.data.folds import assign_folds


def some_groups(number: int, *, classes: int, seed: int) -> dict[str, Counter[int]]:
    """Groups of one to twelve rows, of a few classes each."""
    random = np.random.default_rng(seed)
    return {
        f"group {group}": Counter(random.integers(0, classes, random.integers(1, 13)).tolist())
        for group in range(number)
    }


def uneven(counts: dict[str, Counter[int]], fold_of: dict[str, int], folds: int) -> float:
    """The mean over classes of the standard deviation over folds of their share of the class."""
    classes = sorted({label for rows in counts.values() for label in rows})
    shares = np.zeros((folds, len(classes)))
    for name, rows in counts.items():
        shares[fold_of[name]] += [rows[label] for label in classes]
    return float((shares / shares.sum(axis=0)).std(axis=0).mean())


@pytest.mark.parametrize(("folds", "classes", "groups"), [(3, 2, 20), (5, 11, 60), (10, 4, 200)])
def test_classes_are_as_even_as_by_scikit_learn(folds, classes, groups):
    counts = some_groups(groups, classes=classes, seed=folds)
    labels = [label for rows in counts.values() for label in rows.elements()]
    names = [name for name, rows in counts.items() for _ in rows.elements()]
    theirs: dict[str, int] = {}
    splits = StratifiedGroupKFold(folds, shuffle=True, random_state=0).split(labels, labels, names)
    for fold, (_, tested) in enumerate(splits):
        theirs |= {names[row]: fold for row in tested}

    ours = assign_folds(counts, folds, seed=0)
    assert ours.keys() == counts.keys()
    assert uneven(counts, ours, folds) <= 1.3 * uneven(counts, theirs, folds)


def test_the_order_of_rows_changes_nothing_and_the_seed_does():
    counts = {f"group {number}": Counter({number % 3: 4}) for number in range(30)}
    folds = assign_folds(counts, 5, seed=0)
    assert assign_folds(dict(reversed(counts.items())), 5, seed=0) == folds
    assert assign_folds(counts, 5, seed=1) != folds


def test_a_class_with_a_group_for_each_fold_is_tested_in_each():
    counts = {f"group {number}": Counter({number % 4: 3}) for number in range(12)}
    folds = assign_folds(counts, 3, seed=0)
    assert {(folds[name], label) for name, rows in counts.items() for label in rows} == {
        (fold, label) for fold in range(3) for label in range(4)
    }
