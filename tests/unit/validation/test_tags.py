"""Validation of answers with a tag: both kinds in each split, and tags that contradict each other."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ivcp.data.problems import AnnotationError
from ivcp.records import ANNOTATIONS_FILE, Clip, read_lines
from ivcp.records.validation import ValidationReport
from ivcp.validation.validate import validate_data
from tests.data_sets import DataSet

COLUMNS = {"columns": {"kto_tag": "tag"}}


def row(question: str, answer: str, *, good: bool, **columns: Any) -> dict[str, Any]:
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"conversations": turns, "tag": good, **columns}


def validate(data: DataSet, folder: Path, **settings: Any) -> ValidationReport:
    defaults = {"dataset": "tags", "stage": "kto", "test_size": 0, "report_thumbnails": 0}
    return validate_data(data.config(**defaults | settings), folder)


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    (tmp_path / "data").mkdir()
    return DataSet(tmp_path / "data")


@pytest.mark.parametrize("seed", range(4))
def test_each_split_has_its_share_of_both_kinds(data: DataSet, tmp_path: Path, seed: int) -> None:
    """One in ten is bad: by chance a split of ten rows would have none in a third of all cases."""
    rows = [row(f"Who {number}?", "A man.", good=bool(number % 10)) for number in range(100)]
    data.add("tags", rows, **COLUMNS)
    validate(data, tmp_path / "out", test_size=0.1, val_size=0.2, seed=seed)
    clips = read_lines(tmp_path / "out" / ANNOTATIONS_FILE, Clip)
    assert Counter((clip.split, clip.desirable) for clip in clips) == {
        ("train", True): 63, ("train", False): 7, ("val", True): 18, ("val", False): 2, ("test", True): 9,
        ("test", False): 1,
    }  # fmt: skip


def test_a_sample_of_rows_keeps_both_kinds(data: DataSet, tmp_path: Path) -> None:
    data.add("tags", [row(f"Who {number}?", "A man.", good=number > 0) for number in range(50)], **COLUMNS)
    validate(data, tmp_path / "out", max_samples=5)
    assert {clip.desirable for clip in read_lines(tmp_path / "out" / ANNOTATIONS_FILE, Clip)} == {True, False}


def test_a_split_with_one_kind_is_named(data: DataSet, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [row(f"Who {number}?", "A man.", good=bool(number % 2)) for number in range(6)]
    rows += [row("Where?", "Here.", good=True, split="val")]
    data.add("tags", rows, **COLUMNS)
    with caplog.at_level(logging.WARNING):
        validate(data, tmp_path / "out")
    assert "the val split has good answers alone" in caplog.text


def test_the_same_answer_good_and_bad_is_a_contradiction_and_no_duplicate(
    data: DataSet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [
        row("Who?", "A man.", good=True),
        row("Who?", "A man.", good=False),
        row("Who?", "A woman.", good=False),
        row("Where?", "Here.", good=True),
        row("Where?", "Here.", good=True),
    ]
    data.add("tags", rows, **COLUMNS)
    with caplog.at_level(logging.WARNING):
        report = validate(data, tmp_path / "out")
    assert (report.num_label_conflicts, report.num_duplicates) == (1, 1)
    (found,) = report.contradictions
    assert (found.kind, found.num_clips, set(found.label_names)) == ("answer", 2, {"good", "bad"})
    assert [same.clip_ids for same in report.duplicates] == [("tags:3", "tags:4")]
    said = "1 contradictions: the same answer to the same prompt is good in one row and bad in another"
    assert said in caplog.text
    assert "tags:1 bad, tags:0 good" in caplog.text
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "the same answer to the same prompt, good in one row and bad in another" in page
    with pytest.raises(AnnotationError, match="Correct the tags, or take the rows out"):
        validate(data, tmp_path / "out", on_label_conflicts="error")
