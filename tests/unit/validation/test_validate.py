import hashlib
import json
import os
from pathlib import Path

import pytest
from PIL import Image

from ivcp.data.problems import AnnotationError
from ivcp.records import Clip, Labels, QuarantinedClip, read_lines
from ivcp.records.quarantine import UnusableVideosError
from ivcp.records.validation import ValidationReport
from ivcp.settings import RunConfig
from ivcp.validation.catalog import Catalog
from ivcp.validation.rows.read import read_annotations
from ivcp.validation.validate import validate_data
from tests.data_sets import DataSet, make_clip, sharegpt_row


def test_writes_what_the_next_steps_read(action_data: DataSet, tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder"
    report = validate_data(action_data.config(test_size=0.25), out)
    assert report.num_clips == {"train": 9, "val": 0, "test": 3}
    assert report.label_counts["test"] == (1, 1, 1)
    assert (report.num_quarantined, report.duplicates, report.leaks) == (0, (), ())
    assert report.codecs == {"h264": 12}
    assert ValidationReport.read(out / "report.json") == report
    assert Labels.read(out / "labels.json").label_names == ("run", "sit", "walk")
    clips = read_lines(out / "annotations.jsonl", Clip)
    assert [clip.clip_id for clip in clips] == [f"actions:{row}" for row in range(12)]
    assert {clip.num_frames for clip in clips} == {20}
    assert len({clip.group for clip in clips if clip.split == "test"}) == 1
    page = (out / "report.html").read_text()
    assert "<h1>Data validation</h1>" in page
    assert "walk" in page


def test_the_fingerprint_follows_content_not_time(action_data: DataSet, tmp_path: Path) -> None:
    first = validate_data(action_data.config(), tmp_path / "a").fingerprint
    os.utime(action_data.folder / "3.mp4", (0, 0))
    assert validate_data(action_data.config(), tmp_path / "b").fingerprint == first
    make_clip(action_data.folder / "3.mp4", seed=99)
    assert validate_data(action_data.config(), tmp_path / "c").fingerprint != first


def test_clips_say_what_identifies_the_bytes_of_their_video(action_data: DataSet, tmp_path: Path) -> None:
    (action_data.folder / "copy.mp4").write_bytes((action_data.folder / "1.mp4").read_bytes())
    for name, shade in (("a.png", 10), ("b.png", 200)):
        Image.new("RGB", (64, 48), (shade, 0, 0)).save(action_data.folder / name)
    rows = [
        sharegpt_row("1.mp4", 0),
        sharegpt_row("copy.mp4", 1),
        *(sharegpt_row("", 0) | {"videos": [images]} for images in (["a.png", "b.png"], ["b.png", "a.png"])),
    ]
    validate_data(action_data.add("actions", rows).config(), tmp_path / "out")
    hashes = [clip.content_hash for clip in read_lines(tmp_path / "out" / "annotations.jsonl", Clip)]
    whole = hashlib.sha256((action_data.folder / "1.mp4").read_bytes()).hexdigest()
    assert hashes[0] == hashes[1] == f"sha256:{whole}"
    assert len(set(hashes)) == 3


def spoil(data: DataSet) -> None:
    (data.folder / "0.mp4").unlink()
    (data.folder / "4.mp4").write_bytes(b"")
    (data.folder / "5.mp4").write_text("This is text.\n" * 50)
    whole = (data.folder / "6.mp4").read_bytes()
    (data.folder / "6.mp4").write_bytes(whole[: len(whole) // 2])


def test_bad_videos_go_to_quarantine(action_data: DataSet, tmp_path: Path) -> None:
    spoil(action_data)
    report = validate_data(action_data.config(max_invalid_fraction=0.5), tmp_path / "out")
    quarantined = read_lines(tmp_path / "out" / "quarantine.jsonl", QuarantinedClip)
    assert [(clip.row, clip.reason) for clip in quarantined] == [
        (0, "missing"),
        (4, "empty"),
        (5, "not_a_video"),
        (6, "truncated"),
    ]
    assert (report.num_rows, report.num_quarantined, report.num_clips["train"]) == (12, 4, 8)


def test_too_many_bad_videos_are_refused_with_the_report_written(action_data: DataSet, tmp_path: Path) -> None:
    spoil(action_data)
    with pytest.raises(UnusableVideosError) as caught:
        validate_data(action_data.config(), tmp_path / "out")
    message = str(caught.value)
    assert "4 of 12 rows (33.3%) have no usable video, max_invalid_fraction allows 5.0%" in message
    assert "1 missing, 1 empty, 1 not_a_video, 1 truncated" in message
    assert "actions:0" in message
    assert ValidationReport.read(tmp_path / "out" / "report.json").num_quarantined == 4
    assert "These data are refused" in (tmp_path / "out" / "report.html").read_text()


def test_a_video_that_takes_too_long(action_data: DataSet, tmp_path: Path) -> None:
    Image.new("RGB", (640, 480)).save(action_data.folder / "frame.png")
    rows = json.loads((action_data.folder / "actions.json").read_text())
    endless = sharegpt_row("", "run") | {"videos": [["frame.png"] * 50_000]}
    settings = {"max_invalid_fraction": 0.5, "video_timeout_seconds": 2}
    validate_data(action_data.add("actions", [endless, *rows]).config(**settings), tmp_path / "out")
    (clip,) = read_lines(tmp_path / "out" / "quarantine.jsonl", QuarantinedClip)
    assert (clip.row, clip.reason) == (0, "timeout")


def test_duplicates_and_leaks_are_reported(action_data: DataSet, tmp_path: Path) -> None:
    (action_data.folder / "copy.mp4").write_bytes((action_data.folder / "1.mp4").read_bytes())
    held_out = [sharegpt_row("copy.mp4", "walk", group="p9"), sharegpt_row("2.mp4", "walk", group="person 1")]
    action_data.add("held_out", held_out)
    with pytest.raises(AnnotationError) as caught:
        validate_data(action_data.config(test_dataset="held_out"), tmp_path / "refused")
    assert "3 leaks: the same video content or group stands in several splits" in str(caught.value)
    assert "the same group person 1: 3 in train, 1 in test" in str(caught.value)
    assert "set on_leaks: warn to continue" in str(caught.value)
    assert ValidationReport.read(tmp_path / "refused" / "report.json").num_leaks == 3
    report = validate_data(action_data.config(test_dataset="held_out", on_leaks="warn"), tmp_path / "out")
    assert [(leak.kind, leak.num_clips) for leak in report.leaks] == [
        ("content", {"train": 1, "test": 1}),
        ("content", {"train": 1, "test": 1}),
        ("group", {"train": 3, "test": 1}),
    ]
    contradiction = report.duplicates[0]
    assert contradiction.clip_ids == ("actions:1", "held_out:0")
    assert contradiction.label_names == ("sit", "walk")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "contradiction" in page
    assert "copy.mp4" in page


def test_clips_of_one_video_are_no_duplicates(data_set: DataSet, tmp_path: Path) -> None:
    make_clip(data_set.folder / "a.mp4", num_frames=40)
    rows = [sharegpt_row("a.mp4", n % 2, start_seconds=n, end_seconds=n + 1) for n in range(5)]
    config = data_set.add("actions", rows).config(max_invalid_fraction=0.5)
    report = validate_data(config, tmp_path / "out")
    assert (report.num_videos, report.duplicates, report.quarantine_reasons) == (1, (), {"span_outside_video": 1})


def test_a_class_that_lost_its_training_rows(action_data: DataSet, tmp_path: Path) -> None:
    for number in range(2, 12, 3):
        (action_data.folder / f"{number}.mp4").unlink()
    with pytest.raises(AnnotationError, match="1 of 3 classes have no training row: walk"):
        validate_data(action_data.config(max_invalid_fraction=0.5), tmp_path / "out")
    assert (tmp_path / "out" / "report.json").exists()


def test_an_output_folder_that_cannot_be_written(action_data: DataSet, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"output folder .*file/out cannot be written"):
        validate_data(action_data.config(), tmp_path / "file" / "out")


def splits(config: RunConfig) -> dict[str, str]:
    with Catalog() as catalog:
        read_annotations(config, catalog)
        return {row.clip_id: row.split for row in catalog.usable()}


def test_splits_come_from_data_sets_rows_and_sizes(action_data: DataSet) -> None:
    rows = [sharegpt_row("0.mp4", "run", group=f"q{n}", split="test" if n < 2 else None) for n in range(8)]
    rows += [sharegpt_row("1.mp4", name, group="r") for name in ("sit", "walk")]
    action_data.add("more", rows)
    config = action_data.config(dataset="actions,more", val_size=4)
    split_of = splits(config)
    assert [split_of[f"more:{row}"] for row in range(2)] == ["test", "test"]
    assert sum(split == "val" for split in split_of.values()) in (3, 4, 5)
    with pytest.raises(AnnotationError, match="test_size = 3, but there are rows whose split is test"):
        splits(action_data.config(dataset="actions,more", test_size=3))
    with pytest.raises(AnnotationError, match="data set actions is named for train and for test"):
        splits(action_data.config(test_dataset="actions"))
    with pytest.raises(AnnotationError, match="dataset is not set"):
        splits(action_data.config(dataset=""))


def test_max_samples_is_a_seeded_choice_of_each_data_set(action_data: DataSet) -> None:
    chosen = list(splits(action_data.config(max_samples=9)))
    assert len(chosen) == 9
    assert chosen == sorted(chosen, key=lambda clip_id: int(clip_id.partition(":")[2]))
    assert chosen == list(splits(action_data.config(max_samples=9)))
    assert chosen != list(splits(action_data.config(max_samples=9, seed=1)))


def test_a_missing_base_model_is_named_before_anything_is_decoded(action_data: DataSet, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        validate_data(action_data.config(model_name_or_path=str(tmp_path / "nowhere")), tmp_path / "out")
    assert not (tmp_path / "out" / "report.json").exists()
