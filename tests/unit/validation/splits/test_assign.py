"""Splits stay what they are when rows change. Videos are small files here, whose bytes stand for what is in them."""

from __future__ import annotations

import hashlib
import json
import logging
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ivcp.data.problems import AnnotationError
from tests.changing_rows import LABELS, changed, count, rows_of, split_clips, write


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "group_splits.jsonl").read_text().splitlines()]


def test_ten_rows_fewer_move_nothing(tmp_path: Path) -> None:
    """The accident: a champion was measured on clips that it had trained on."""
    rows = rows_of(90)
    write(tmp_path, rows)
    first = split_clips(tmp_path, test_size=0.2, val_size=0.1)
    assert count(first) == {"train": 189, "val": 27, "test": 54}
    write(tmp_path, rows[10:])
    second = split_clips(tmp_path, test_size=0.2, val_size=0.1)
    assert len(second) == 260
    assert second == {content: first[content] for content in second}


def test_new_groups_are_added_to_what_was_given(tmp_path: Path) -> None:
    write(tmp_path, rows_of(20))
    first = split_clips(tmp_path, test_size=0.2)
    write(tmp_path, rows_of(40))
    second = split_clips(tmp_path, test_size=0.2, seed=7)
    assert first.items() < second.items()
    assert count(second) == {"train": 96, "val": 0, "test": 24}
    write(tmp_path, rows_of(20))
    split_clips(tmp_path, test_size=0.2)
    write(tmp_path, rows_of(40))
    assert split_clips(tmp_path, test_size=0.2) == second  # groups that were away come back to their split


def test_it_is_kept_in_words_that_people_read(tmp_path: Path) -> None:
    write(tmp_path, rows_of(5))
    splits = split_clips(tmp_path, test_size=3)
    header, *groups = lines_of(tmp_path)
    assert header == {"format_version": 1, "resplits": 0}
    assert {line["group"]: line["split"] for line in groups} == {
        f"person {group}": splits[f"content {group} 0"] for group in range(5)
    }
    digest = hashlib.sha256(b"content 0 0").hexdigest()[:16]
    assert digest in next(line["contents"] for line in groups if line["group"] == "person 0")
    written = (tmp_path / "group_splits.jsonl").stat().st_mtime_ns
    split_clips(tmp_path, test_size=3)
    assert (tmp_path / "group_splits.jsonl").stat().st_mtime_ns == written  # nothing is new, nothing is written


def test_other_sizes_and_seeds_move_nothing_and_that_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, rows_of(20))
    first = split_clips(tmp_path, test_size=0.2, val_size=0.1)
    caplog.set_level(logging.INFO)
    for settings in ({"test_size": 0.4, "val_size": 0.1}, {"test_size": 0.2, "seed": 5}, {}):
        assert split_clips(tmp_path, **settings) == first
    assert "20 groups are in the split that an earlier run gave them" in caplog.text
    assert "test has 12 rows (test_size asks for 24)" in caplog.text
    again = split_clips(tmp_path, test_size=0.4, seed=5, resplit=True)
    assert count(again)["test"] == 24
    assert lines_of(tmp_path)[0]["resplits"] == 1
    assert split_clips(tmp_path) == again


def test_a_test_split_that_comes_after_training_on_everything_is_refused(tmp_path: Path) -> None:
    write(tmp_path, rows_of(10))
    assert count(split_clips(tmp_path)) == {"train": 30, "val": 0, "test": 0}
    with pytest.raises(AnnotationError, match=r"test_size = 0.2: 10 of the 10 groups were given to the training split"):
        split_clips(tmp_path, test_size=0.2)
    assert count(split_clips(tmp_path, test_size=0.2, resplit=True))["test"] == 6


def test_a_video_keeps_its_split_though_its_group_is_renamed(tmp_path: Path) -> None:
    rows = rows_of(12)
    write(tmp_path, rows)
    first = split_clips(tmp_path, test_size=0.25)
    renamed = [replace(row, group=f"actor {row.group}", file=f"new_{row.file}") for row in rows]
    write(tmp_path, renamed)
    assert split_clips(tmp_path, test_size=0.25) == first
    by_video = [replace(row, group="") for row in rows]
    write(tmp_path, by_video)
    assert split_clips(tmp_path, test_size=0.25) == first


def test_a_training_video_in_a_test_group_pulls_the_group_into_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = rows_of(12)
    write(tmp_path, rows)
    first = split_clips(tmp_path, test_size=0.25)
    of_test = next(row.group for row in rows if first[row.content] == "test")
    trained = next(row for row in rows if first[row.content] == "train")
    write(tmp_path, [replace(row, group=of_test) if row is trained else row for row in rows])
    second = split_clips(tmp_path, test_size=0.25)
    assert {second[row.content] for row in rows if row.group == of_test} == {"train"}
    assert "3 videos that an earlier run gave to val or test, alone or with their group" in caplog.text
    assert not [content for content in first if (first[content], second[content]) == ("train", "test")]


def test_test_videos_that_get_the_name_of_a_training_group_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = rows_of(12)
    write(tmp_path, rows)
    first = split_clips(tmp_path, test_size=0.25)
    tested = next(row.group for row in rows if first[row.content] == "test")
    trained = next(row.group for row in rows if first[row.content] == "train")
    write(tmp_path, [replace(row, group=trained) if row.group == tested else row for row in rows])
    with caplog.at_level(logging.WARNING):
        split_clips(tmp_path, test_size=0.25)
    named = [row.file for row in rows if row.group == tested]
    assert "3 videos that an earlier run gave to val or test" in caplog.text
    assert all(file in caplog.text for file in named)


def test_where_the_data_lie_changes_nothing(tmp_path: Path) -> None:
    rows = [replace(row, group="") for row in rows_of(20)]
    (tmp_path / "one").mkdir()
    write(tmp_path / "one", rows)
    first = split_clips(tmp_path / "one", test_size=0.2)
    assert "0_0.mp4" in {line.get("group") for line in lines_of(tmp_path / "one")}
    (tmp_path / "one").rename(tmp_path / "two")
    assert split_clips(tmp_path / "two", test_size=0.2) == first
    (tmp_path / "two" / "group_splits.jsonl").unlink()
    assert split_clips(tmp_path / "two", test_size=0.2) == first  # the names alone say the same


def test_named_and_kept_test_rows_are_not_mixed(tmp_path: Path) -> None:
    write(tmp_path, rows_of(10))
    split_clips(tmp_path, test_size=0.2)
    write(tmp_path, [replace(row, file=f"t{row.file}", group="other", content=f"t{row.content}") for row in rows_of(1)],
          name="held_out")  # fmt: skip
    with pytest.raises(AnnotationError, match="2 groups of the other rows were given to test by an earlier run"):
        split_clips(tmp_path, test_dataset="held_out")
    assert count(split_clips(tmp_path, test_dataset="held_out", resplit=True)) == {"train": 30, "val": 0, "test": 3}


def test_a_class_whose_training_groups_are_gone_says_where_the_others_are(tmp_path: Path) -> None:
    rows = [replace(row, label=f"{LABELS[group % 3]}") for group in range(12) for row in rows_of(12)[3 * group :][:3]]
    write(tmp_path, rows)
    splits = split_clips(tmp_path, test_size=0.3)
    kept = [row for row in rows if row.label != "run" or splits[row.content] == "test"]
    write(tmp_path, kept)
    with pytest.raises(AnnotationError, match="1 classes have rows only in groups that an earlier run gave to val or"):
        split_clips(tmp_path, test_size=0.3)


@pytest.mark.parametrize("seed", range(20))
def test_no_clip_ever_changes_from_train_to_test(tmp_path: Path, seed: int) -> None:
    """Ten changes in a row for each of twenty seeds; contents are what clips are known by."""
    chance, rows = random.Random(seed), rows_of(30)
    trained: set[str] = set()
    tested, val_size = 0, chance.choice([0, 0.1, 0.2])
    for step in range(10):
        write(tmp_path, rows)
        test_size = chance.choice([0.2, 0.2, 0.3, 20])
        splits = split_clips(tmp_path, seed=chance.randint(0, 3), test_size=test_size, val_size=val_size)
        held_out = {content for content, split in splits.items() if split == "test"}
        assert not held_out & trained
        trained |= {content for content, split in splits.items() if split == "train"}
        tested += len(held_out)
        rows = changed(rows, chance, step)
    assert tested > 50
