import json
import re
import shutil
from pathlib import Path

import pytest

from ivcp.data.problems import AnnotationError
from ivcp.records import Clip, QuarantinedClip, read_lines
from ivcp.validation.validate import validate_data
from tests.data_sets import DataSet, make_clip, sharegpt_row
from tests.unit.validation.conftest import MakeScene


def test_videos_that_look_alike_in_several_splits(
    data_set: DataSet, tmp_path: Path, make_scene: MakeScene, caplog: pytest.LogCaptureFixture
) -> None:
    for seed in range(4):
        make_scene(data_set.folder / f"{seed}.mp4", seed=seed)
    make_scene(data_set.folder / "small.mp4", seed=0, size=(48, 64), crf=32)
    make_scene(data_set.folder / "same group.mp4", seed=1, size=(48, 64), crf=32)
    rows = [sharegpt_row(f"{seed}.mp4", seed % 2, group=f"g{seed}") for seed in range(4)]
    rows.append(sharegpt_row("same group.mp4", 1, group="g1"))
    data_set.add("actions", rows).add("held_out", [sharegpt_row("small.mp4", 0, group="other")])
    report = validate_data(data_set.config(test_dataset="held_out"), tmp_path / "out")
    assert (report.num_near_duplicates, report.num_near_leaks, report.num_alike_in_groups) == (1, 1, 1)
    assert report.near_duplicates is not None
    (alike,) = report.near_duplicates
    assert [Path(video).name for video in alike.videos] == ["0.mp4", "small.mp4"]
    assert (alike.num_clips, alike.groups, alike.label_names) == ({"train": 1, "test": 1}, ("g0", "other"), ("0",))
    assert (report.num_leaks, report.num_duplicates) == (0, 0)
    assert "1 sets of videos that look alike stand in several splits" in caplog.text
    assert "small.mp4" in (tmp_path / "out" / "report.html").read_text()
    with pytest.raises(AnnotationError, match="set on_near_duplicates: warn to continue"):
        validate_data(data_set.config(test_dataset="held_out", on_near_duplicates="error"), tmp_path / "out")
    off = validate_data(data_set.config(test_dataset="held_out", near_duplicate_frames=0), tmp_path / "out")
    assert (off.num_near_duplicates, off.near_duplicates) == (0, None)


def test_contradicting_look_alikes_are_shown_and_called_so(
    data_set: DataSet, tmp_path: Path, make_scene: MakeScene, caplog: pytest.LogCaptureFixture
) -> None:
    for seed in range(4):
        make_scene(data_set.folder / f"{seed}.mp4", seed=seed)
    make_scene(data_set.folder / "again.mp4", seed=0, size=(48, 64), crf=32)  # of another class
    rows = [sharegpt_row(f"{seed}.mp4", ("run", "fall")[seed % 2], group=f"g{seed}") for seed in range(4)]
    data_set.add("actions", [*rows, sharegpt_row("again.mp4", "fall", group="g0")])
    report = validate_data(data_set.config(report_thumbnails=1), tmp_path / "out")
    assert (report.num_contradicting_looks, report.num_near_duplicates, report.num_alike_in_groups) == (1, 0, 0)
    (found,) = report.contradictions
    assert (found.kind, found.num_clips, set(found.label_names)) == ("look", 2, {"run", "fall"})
    assert {(clip.clip_id, clip.label_name) for clip in found.clips} == {("actions:0", "run"), ("actions:4", "fall")}
    assert "actions:0 run" in caplog.text
    assert "one group" not in caplog.text
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Contradictions: clips that show the same and have several classes" in page
    assert page.count("data:image/jpeg;base64,") == 4  # two classes, and the two clips
    with pytest.raises(AnnotationError, match="Look at their pictures in the report and correct the labels"):
        validate_data(data_set.config(on_label_conflicts="error"), tmp_path / "out")


def test_spans_of_alike_videos_that_differ_are_no_contradiction(
    data_set: DataSet, tmp_path: Path, make_scene: MakeScene
) -> None:
    make_scene(data_set.folder / "a.mp4", seed=0, num_frames=24)
    make_scene(data_set.folder / "b.mp4", seed=0, size=(48, 64), num_frames=24)
    spans = [("a.mp4", "run", 0, 1), ("a.mp4", "fall", 1, 2), ("b.mp4", "run", 0, 1), ("b.mp4", "fall", 1, 2)]
    rows = [
        sharegpt_row(video, label) | {"start_seconds": start, "end_seconds": end} for video, label, start, end in spans
    ]
    report = validate_data(data_set.add("actions", rows).config(), tmp_path)
    assert (report.num_contradicting_looks, report.contradictions) == (0, ())


def test_pictures_come_from_clips_that_can_be_used(data_set: DataSet, tmp_path: Path) -> None:
    rows = []
    for number in range(6):
        video = make_clip(data_set.folder / f"{number}.mp4", seed=number)
        rows.append(sharegpt_row(video.name, ("run", "fall")[number % 2]))
    for number in range(2):  # the first of each class
        (data_set.folder / f"{number}.mp4").write_bytes(b"no video")
    config = data_set.add("actions", rows).config(
        report_thumbnails=1, near_duplicate_frames=0, max_invalid_fraction=0.5
    )
    validate_data(config, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 2
    assert "2.mp4" in page


def test_videos_of_one_colour_do_not_look_alike_but_are_counted(data_set: DataSet, tmp_path: Path) -> None:
    for number in range(3):
        make_clip(data_set.folder / f"{number}.mp4", num_frames=10 + number, size=(8, 8))
    data_set.add("actions", [sharegpt_row(f"{number}.mp4", number % 2) for number in range(3)])
    report = validate_data(data_set.config(), tmp_path)
    assert (report.num_uniform, report.num_near_duplicates) == (3, 0)
    assert "3 videos were not compared" in (tmp_path / "report.html").read_text()


def test_settings_say_what_duplicates_and_contradictions_lead_to(
    action_data: DataSet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = json.loads((action_data.folder / "actions.json").read_text())
    (action_data.folder / "copy.mp4").write_bytes((action_data.folder / "0.mp4").read_bytes())
    action_data.add("actions", [*rows, sharegpt_row("copy.mp4", "walk"), sharegpt_row("1.mp4", "sit")])
    report = validate_data(action_data.config(near_duplicate_frames=0), tmp_path / "out")
    assert (report.num_duplicates, report.num_label_conflicts, report.num_leaks) == (2, 1, 0)
    assert [(same.num_clips, same.clip_ids) for same in report.duplicates] == [
        (2, ("actions:0", "actions:12")),
        (2, ("actions:1", "actions:13")),
    ]
    assert "1 contradictions: 1 contents and 0 sets of videos that look alike have several classes" in caplog.text
    assert "actions:0 run" in caplog.text
    settings = {"on_duplicates": "error", "on_label_conflicts": "error"}
    with pytest.raises(AnnotationError) as caught:
        validate_data(action_data.config(**settings), tmp_path / "out")
    assert "2 contents stand in several rows" in str(caught.value)
    assert "set on_label_conflicts: warn to continue" in str(caught.value)
    caplog.clear()
    validate_data(action_data.config(on_duplicates="ignore", on_label_conflicts="ignore"), tmp_path / "out")
    assert "several" not in caplog.text


def test_groups_with_the_same_content_are_cut_into_one_split(data_set: DataSet, tmp_path: Path) -> None:
    rows = []
    for number in range(8):
        make_clip(data_set.folder / f"{number}.mp4", seed=number)
        (data_set.folder / f"again {number}.mp4").write_bytes((data_set.folder / f"{number}.mp4").read_bytes())
        rows += [sharegpt_row(f"{number}.mp4", number % 2), sharegpt_row(f"again {number}.mp4", number % 2)]
    for seed in range(3):
        config = data_set.add("actions", rows).config(test_size=0.25, seed=seed)
        report = validate_data(config, tmp_path / str(seed))
        assert (report.num_leaks, report.num_clips["test"]) == (0, 4)


def test_examples_are_limited_and_counted(action_data: DataSet, tmp_path: Path) -> None:
    rows = json.loads((action_data.folder / "actions.json").read_text())
    config = action_data.add("actions", rows * 30).config(report_examples=5)
    report = validate_data(config, tmp_path)
    assert (report.num_duplicates, len(report.duplicates)) == (12, 5)
    assert (report.duplicates[0].num_clips, len(report.duplicates[0].clip_ids)) == (30, 20)
    assert "5 of 12 are shown" in (tmp_path / "report.html").read_text()


def test_spans_outside_of_their_video(data_set: DataSet, tmp_path: Path) -> None:
    make_clip(data_set.folder / "a.mp4", num_frames=40, fps=10)
    spans = [(0, 1), (3, 4.5), (1, 9), (7, 8), (2, None)]
    rows = [sharegpt_row("a.mp4", n % 2, start_seconds=a, end_seconds=b) for n, (a, b) in enumerate(spans)]
    report = validate_data(data_set.add("actions", rows).config(max_invalid_fraction=0.5), tmp_path)
    quarantined = read_lines(tmp_path / "quarantine.jsonl", QuarantinedClip)
    assert [(clip.row, clip.reason) for clip in quarantined] == [
        (2, "span_outside_video"),
        (3, "span_outside_video"),
    ]
    assert "end_seconds = 9, but the video ends at 4.00 s" in quarantined[0].detail
    assert report.seconds is not None
    assert (report.seconds.minimum, report.seconds.maximum) == (1.0, 2.0)
    assert [clip.row for clip in read_lines(tmp_path / "annotations.jsonl", Clip)] == [0, 1, 4]


def test_the_page_is_self_contained_and_shows_each_class(action_data: DataSet, tmp_path: Path) -> None:
    validate_data(action_data.config(report_thumbnails=1, test_size=0.25, near_duplicate_frames=0), tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 3
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    assert "Tokens were not counted: model_name_or_path is not set" in page
    validate_data(action_data.config(report_thumbnails=0), tmp_path)
    assert "data:image" not in (tmp_path / "report.html").read_text()


def test_each_class_is_shown_where_splits_are_cut_again(data_set: DataSet, tmp_path: Path) -> None:
    rows = []
    for number in range(24):
        video = make_clip(data_set.folder / f"{number}.mp4", seed=number)
        rows.append(sharegpt_row(video.name, number % 3, group=f"person {number}"))
    shutil.copy(data_set.folder / "0.mp4", data_set.folder / "3.mp4")  # two persons share it: they stay together
    config = data_set.add("actions", rows).config(report_thumbnails=1, test_size=0.4, near_duplicate_frames=0, seed=2)
    validate_data(config, tmp_path)
    assert (tmp_path / "report.html").read_text().count("data:image/jpeg;base64,") == 3
