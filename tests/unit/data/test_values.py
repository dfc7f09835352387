from typing import Any

import pytest

from ivcp.data.problems import RowError
from ivcp.data.values import (
    as_list,
    check_text,
    is_missing,
    offered,
    read_group,
    read_label,
    read_span,
    read_split,
)

NAN = float("nan")
MISSING = [None, "", "  \t", NAN, "nan", "NaN "]


@pytest.mark.parametrize("value", MISSING)
def test_what_is_missing_is_missing_everywhere(value: Any) -> None:
    row = dict.fromkeys(("label", "split", "group", "start", "end"), value)
    assert is_missing(value)
    assert (read_split(row, "split"), read_group(row, "group")) == (None, None)
    assert read_span(row, "start", "end") == (None, None)
    with pytest.raises(RowError, match=r"label is missing: expected a class id or name$"):
        read_label(row, "label")


def test_what_is_there() -> None:
    assert not any(map(is_missing, (0, 0.0, False, "0", "None", "null", [], {})))


@pytest.mark.parametrize(
    ("value", "label"), [(0, 0), (7, 7), (2**63 - 1, 2**63 - 1), ("7", "7"), (" run\u3000", "run")]
)
def test_labels(value: Any, label: int | str) -> None:
    assert read_label({"label": value}, "label") == label


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1.0, r"label = 1.0: expected a class id \(a whole number from 0\) or name; write 1"),
        (1.5, r"label = 1.5: expected a class id \(a whole number from 0\) or name$"),
        ("2.0", "label = '2.0': expected a class id without a decimal point"),
        (True, "label = True: expected"),
        (["run"], r"label = \['run'\]: expected"),
        (-1, "label = -1: class ids count from 0"),
        ("-1", "label = -1: class ids count from 0"),
        (2**63, "label = 9223372036854775808: no class has such an id"),
        ("1" * 19, "label = '1111111111111111111': no class has such an id"),
        ("1" * 5000, "label = '1111.*111': no class has such an id"),
    ],
)
def test_labels_that_are_none(value: Any, message: str) -> None:
    with pytest.raises(RowError, match=message) as caught:
        read_label({"label": value}, "label")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("value", "split"), [("Train", "train"), (" VALIDATION", "val"), ("dev", "val"), ("Eval", "test")]
)
def test_splits_in_any_case(value: str, split: str) -> None:
    assert read_split({"split": value}, "split") == split


@pytest.mark.parametrize("value", ["holdout", ["train"], {"a": 1}, 1, True])
def test_splits_that_are_none(value: Any) -> None:
    with pytest.raises(RowError, match=r"split = .*: expected train, val or test"):
        read_split({"split": value}, "split")


def test_groups() -> None:
    values = ("p1 ", 5, 5.0, 2.5, "5")
    assert [read_group({"group": value}, "group") for value in values] == ["p1", "5", "5", "2.5", "5"]
    for value in (True, ["p1"], {}):
        with pytest.raises(RowError, match=r"group = .*: expected text or a number"):
            read_group({"group": value}, "group")


def test_spans() -> None:
    assert read_span({"a": "1.5", "b": 3}, "a", "b") == (1.5, 3.0)
    assert read_span({"a": None, "b": "2"}, "a", "b") == (None, 2.0)
    for value in ("inf", float("inf"), "soon", True, [1], 10**400):
        with pytest.raises(RowError, match=r"b = .*: expected seconds"):
            read_span({"b": value}, "a", "b")
    with pytest.raises(RowError, match=r"a = 3.0, b = 2.0: expected 0 <= start < end"):
        read_span({"a": 3, "b": 2}, "a", "b")


def test_half_a_character_anywhere() -> None:
    check_text({"a": "动作 🏃", "b": [{"c": ["x"]}], "d": 1})
    for row in ({"a": "x\ud83d"}, {"a": [{"b": ["\ud83d"]}]}, {"a": {"\ud83d": 1}}, {"\ud83d": 1}):
        with pytest.raises(RowError, match=r"holds \\ud83d in character"):
            check_text(row)
    deep: Any = "x"
    for _ in range(100_000):
        deep = [deep]
    check_text({"a": deep})


@pytest.mark.parametrize(
    ("row", "setting", "column", "message"),
    [
        (
            {"video": "a.mp4", "x": 1},
            "videos",
            "videos",
            "; the row has video: rename it, or set columns.videos to 'video'",
        ),
        (
            {"Label": "run"},
            "action_label",
            "action_label",
            "; the row has Label: rename it, or set columns.action_label to",
        ),
        ({"Videos": "a.mp4"}, "videos", "videos", "; the row has Videos: rename it"),
        ({"vidoes": "a.mp4"}, "videos", "videos", "; the row has vidoes: rename it"),
        ({"x": 1, "y": 2}, "videos", "videos", "; the row has x, y: name yours in dataset_info.json, columns.videos"),
        ({"x": 1, "videos": None}, "videos", "videos", ""),
        ({"video": None, "x": 1}, "videos", "videos", "; the row has x: name yours"),
        ({}, "videos", "videos", "; the row has nothing: name yours"),
    ],
)
def test_what_a_row_has_instead(row: dict[str, Any], setting: str, column: str, message: str) -> None:
    assert offered(row, setting, column).startswith(message)


def test_lists_in_cells() -> None:
    assert as_list('["a", "b"]') == ["a", "b"]
    assert as_list("[b].mp4") == ["[b].mp4"]
    assert as_list("[" * 100_000) == ["[" * 100_000]
    assert as_list(["a"]) == ["a"]
