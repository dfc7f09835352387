import math
from typing import Any

import pytest

from ivcp.data.problems import RowError
from ivcp.data.targets import RowTarget, Targets

SEVERAL, NUMBER = Targets("multi_label_classification"), Targets("regression")
HEADS = Targets(heads=("verb", "noun"))


def read(targets: Targets, **row: Any) -> RowTarget:
    return targets.read(row, "action_label")


@pytest.mark.parametrize(
    ("value", "labels"),
    [(["a", 3], ("a", 3)), ('["a", "b"]', ("a", "b")), ("a", ("a",)), (2, (2,)), ([" a "], ("a",))],
)
def test_lists_of_classes(value: Any, labels: tuple[Any, ...]) -> None:
    assert read(SEVERAL, action_label=value) == RowTarget(labels=labels)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], r"action_label = \[\]: expected at least one class; a clip that shows none"),
        (None, "action_label is missing: expected a list of classes"),
        (["a", None], "expected class ids or names in the list, and None is neither"),
        (["a", ""], "'' is neither"),
        ([["a"]], r"and \['a'\] is neither"),
        (["a", "a"], "'a' stands there twice"),
        ([1.5], "action_label = 1.5: expected a class id"),
        ([math.nan], "nan is neither"),
    ],
)
def test_lists_that_are_refused(value: Any, message: str) -> None:
    with pytest.raises(RowError, match=message):
        read(SEVERAL, action_label=value)


@pytest.mark.parametrize(("value", "number"), [(1, 1.0), (-0.5, -0.5), ("2.5", 2.5), (" 3e2 ", 300.0)])
def test_numbers(value: Any, number: float) -> None:
    assert read(NUMBER, action_label=value) == RowTarget(value=number)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (math.nan, "action_label = nan: expected a number: leave rows without one out"),
        (math.inf, "action_label = inf: expected a finite number"),
        ("inf", "expected a finite number"),
        ("fast", "action_label = 'fast': expected a number"),
        ("1,5", "expected a number; a decimal point is written as"),
        (True, "action_label = True: expected a number"),
        ([1.0], r"action_label = \[1.0\]: expected a number"),
        (10**400, "expected a number"),
        ("", "action_label is missing: expected a number"),
    ],
)
def test_what_is_no_number(value: Any, message: str) -> None:
    with pytest.raises(RowError, match=message):
        read(NUMBER, action_label=value)


def test_heads() -> None:
    assert read(HEADS, verb="cut", noun=2) == RowTarget(labels=("cut", 2))
    with pytest.raises(RowError, match=r"noun is missing: expected the class of this head \(action_heads\); the row"):
        read(HEADS, verb="cut")


def test_a_list_for_one_class_names_the_setting() -> None:
    with pytest.raises(RowError, match="lists of classes are for problem_type: multi_label_classification"):
        read(Targets(), action_label=["a", "b"])
