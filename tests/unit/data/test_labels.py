from typing import Any

import pytest

from ivcp.data.labels import LabelsError, class_id, explain_from_one, explain_similar, labels_of


def test_names_are_stripped() -> None:
    assert labels_of({"label_names": [" run", "sit\u3000"]}).label_names == ("run", "sit")
    assert labels_of({"label_names": ["run ", "sit"], "reversed_pairs": [[" run", "sit"]]}).partner == {0: 1, 1: 0}
    assert labels_of([" run", "sit"]).label_names == ("run", "sit")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"label_names": ["run", "  "]}, "the name of class 1 is blank: expected text"),
        ({"label_names": ["run", "run "]}, "holds a name twice"),
        ({"label_names": ["run", "\ud83d"]}, r"the name of class 1, '\\ud83d', holds half of a character"),
        ({"label_names": ["run", 3]}, "expected label_names, a list of at least two names: label_names.1"),
        ({"label_names": "run"}, "expected label_names"),
        (["run"], "expected label_names, a list of at least two names: label_names Tuple"),
        ("run", "expected label_names, a list of at least two names, got 'run'"),
        ({"label_names": ["a", "b"], "reversed_pairs": [["a", "c"]]}, "reversed_pairs names unknown classes: c"),
        ({"label_names": ["a", "b"], "reversed_pairs": ["a"]}, "reversed_pairs.0"),
    ],
)
def test_contents_that_are_no_labels(content: Any, message: str) -> None:
    with pytest.raises(LabelsError, match=message):
        labels_of(content)


def test_ids_and_names() -> None:
    assert [class_id(label) for label in (3, "3", "03", "٣")] == [3, 3, 3, 3]
    assert [class_id(label) for label in ("run", "3.0", "-3", "", "²", "9" * 5000)] == [None] * 6


@pytest.mark.parametrize(
    ("ids", "num_classes", "is_from_one"),
    [
        ({1, 2, 3}, 3, True),
        ({1, 3}, 3, True),
        ({0, 1, 2}, 3, False),
        ({0, 3}, 3, False),
        ({1, 2}, 3, False),
        ({1}, 1, False),
        (set(), 3, False),
    ],
)
def test_ids_that_count_from_one(ids: set[int], num_classes: int, is_from_one: bool) -> None:
    assert (explain_from_one(ids, num_classes) is not None) == is_from_one


@pytest.mark.parametrize(
    "names",
    [("Run", "run"), ("sit down", "sitdown"), ("caf\u00e9", "cafe\u0301"), ("ＲＵＮ", "run"), ("run\u200b", "run")],
)
def test_names_that_are_nearly_the_same(names: tuple[str, str]) -> None:
    first, second = map(repr, names)
    found = explain_similar(("walk", *names, "jump"))
    assert found is not None
    assert found.startswith(f"class names that differ in case, spaces or Unicode form only: {first} and {second}. They")


def test_names_that_differ() -> None:
    assert explain_similar(("run", "ran", "跑", "run 2")) is None
