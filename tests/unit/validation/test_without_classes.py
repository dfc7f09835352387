"""Validation of rows that have no classes, and any number of videos."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ivcp.data.problems import AnnotationError
from ivcp.records import Clip, read_lines
from ivcp.records.validation import ValidationReport
from ivcp.validation.reuse import find_validated
from ivcp.validation.validate import validate_data
from tests.data_sets import DataSet, make_clip, sharegpt_row


def row(text: str, *videos: str, **columns: Any) -> dict[str, Any]:
    turns = [{"from": "human", "value": "<video>" * len(videos) + text}, {"from": "gpt", "value": "A man."}]
    return {"conversations": turns, "videos": list(videos), **columns}


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    for number in range(6):
        make_clip(tmp_path / "data" / f"{number}.mp4", seed=number)
    return DataSet(tmp_path / "data")


def validate(data: DataSet, folder: Path, **settings: Any) -> ValidationReport:
    defaults = {"dataset": "talk", "stage": "sft", "near_duplicate_frames": 0, "test_size": 0}
    return validate_data(data.config(**defaults | settings), folder)


def test_the_report_and_its_page_do_without_classes(data: DataSet, tmp_path: Path) -> None:
    data.add("talk", [row("Who?", "0.mp4"), row("Where?", "1.mp4", "2.mp4"), row("Two and two?")])
    report = validate(data, tmp_path / "out")
    assert report.labels is None
    assert report.label_counts == {}
    assert (report.num_rows, report.num_videos, report.num_clips["train"]) == (3, 3, 3)
    assert "classes" not in report.headline()
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Classes" not in page
    assert page.count("data:image/jpeg;base64") == 2, "a picture of each row that has a video"


def test_labels_of_an_earlier_stage_do_not_stay(data: DataSet, tmp_path: Path) -> None:
    data.add("actions", [sharegpt_row(f"{number}.mp4", "ab"[number % 2]) for number in range(6)])
    data.add("talk", [row("Who?", "0.mp4")])
    validate(data, tmp_path / "out", dataset="actions", stage="action_cls")
    assert (tmp_path / "out" / "labels.json").exists()
    validate(data, tmp_path / "out")
    assert not (tmp_path / "out" / "labels.json").exists()
    config = data.config(dataset="talk", stage="sft", near_duplicate_frames=0, test_size=0)
    assert find_validated(config, tmp_path / "out") is not None
    assert find_validated(data.config(dataset="actions", test_size=0), tmp_path / "out") is None


def test_a_video_with_several_questions_is_no_duplicate(data: DataSet, tmp_path: Path) -> None:
    shutil.copy(data.folder / "0.mp4", data.folder / "copy.mp4")
    data.add(
        "talk",
        [
            row("Who?", "0.mp4", group="g"),
            row("Where?", "0.mp4", group="g"),
            row("Who?", "copy.mp4", group="g"),
            row("Who?", "0.mp4", "1.mp4", group="g"),
            row("Who?", "1.mp4", "0.mp4", group="g"),
        ],
    )
    report = validate(data, tmp_path / "out")
    assert [found.clip_ids for found in report.duplicates] == [("talk:0", "talk:2")]
    assert report.duplicates[0].label_names == ()


def test_rows_that_share_any_video_stay_in_one_split(data: DataSet, tmp_path: Path) -> None:
    shutil.copy(data.folder / "5.mp4", data.folder / "copy.mp4")
    rows = [row("Who?", f"{number}.mp4") for number in range(5)]
    rows += [row("Both?", "0.mp4", "5.mp4"), row("Who?", "copy.mp4", "1.mp4"), row("Two and two?")]
    data.add("talk", rows)
    for seed in range(4):
        report = validate(data, tmp_path / f"out{seed}", val_size=3, seed=seed, resplit=True)
        clips = read_lines(tmp_path / f"out{seed}" / "annotations.jsonl", Clip)
        together = {clip.split for clip in clips if clip.row in (0, 1, 5, 6)}
        assert len(together) == 1
        assert report.num_clips["val"] > 0
        assert report.num_leaks == 0


def test_rows_that_were_all_given_to_another_split_are_named(data: DataSet, tmp_path: Path) -> None:
    data.add("talk", [row("Who?", "0.mp4", group="a"), row("Who?", "1.mp4", group="b")])
    validate(data, tmp_path / "out", val_size=1)
    kept = next(clip.group for clip in read_lines(tmp_path / "out" / "annotations.jsonl", Clip) if clip.split == "val")
    data.add("talk", [row("Who?", "2.mp4", group=kept), row("Where?", "3.mp4", group=kept)])
    with pytest.raises(
        AnnotationError, match=f"all rows are in groups that an earlier run gave to val or test .{kept}"
    ):
        validate(data, tmp_path / "out")


def test_leaks_are_found_in_any_video(data: DataSet, tmp_path: Path) -> None:
    data.add("talk", [row("Who?", "0.mp4", "1.mp4")])
    data.add("other", [row("Who?", "2.mp4", "1.mp4")])
    with pytest.raises(AnnotationError, match=r"the same content .*1\.mp4: 1 in train, 1 in val"):
        validate(data, tmp_path / "out", eval_dataset="other", on_leaks="error")


def test_a_sample_of_rows_keeps_no_other_videos(data: DataSet, tmp_path: Path) -> None:
    data.add("talk", [row(f"Who? {number}", f"{number}.mp4", f"{(number + 1) % 6}.mp4") for number in range(6)])
    report = validate(data, tmp_path / "out", max_samples=2)
    clips = read_lines(tmp_path / "out" / "annotations.jsonl", Clip)
    assert len(clips) == 2
    assert report.num_videos == len({video.video for clip in clips for video in clip.media})


def test_missing_videos_of_any_place_are_named(data: DataSet, tmp_path: Path) -> None:
    data.add("talk", [row("Who?", "0.mp4", "gone.mp4"), *(row(f"Who? {number}", "1.mp4") for number in range(3))])
    report = validate(data, tmp_path / "out", max_invalid_fraction=0.5)
    assert report.quarantine_reasons == {"missing": 1}
    line = json.loads((tmp_path / "out" / "quarantine.jsonl").read_text())
    assert line["detail"] == f"video 2: there is no file {data.folder / 'gone.mp4'}"
    assert line["label"] is None


def test_a_span_is_checked(data: DataSet, tmp_path: Path) -> None:
    data.add("talk", [row("Who?", "0.mp4", start_seconds=1, end_seconds=99), row("Who?", "1.mp4", start_seconds=1)])
    report = validate(data, tmp_path / "out", max_invalid_fraction=0.5)
    assert report.quarantine_reasons == {"span_outside_video": 1}


def test_texts_alone_need_no_video(data: DataSet, tmp_path: Path) -> None:
    data.add(
        "talk", [{"text": f"Text {number}."} for number in range(4)], formatting="alpaca", columns={"prompt": "text"}
    )
    report = validate(data, tmp_path / "out", stage="pt", val_size=1)
    assert report.num_videos == 0
    assert report.num_clips == {"train": 3, "val": 1, "test": 0}
    assert report.frames is None
    clips = read_lines(tmp_path / "out" / "annotations.jsonl", Clip)
    assert {(clip.video, clip.num_frames) for clip in clips} == {(None, 0)}
