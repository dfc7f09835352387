import json
import logging
import struct
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from ivcp.data.problems import AnnotationError
from ivcp.records import QuarantinedClip, read_lines
from ivcp.records.quarantine import UnusableVideosError
from ivcp.records.validation import ValidationReport
from ivcp.validation.validate import validate_data
from tests.data_sets import DataSet, make_clip

UCF_TAGS = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}


def test_most_videos_missing_is_one_message_about_the_folder(action_data: DataSet, tmp_path: Path) -> None:
    for number in range(2, 12):
        (action_data.folder / f"{number}.mp4").unlink()
    (action_data.folder / "0.mp4").write_text("would be not_a_video, if anybody looked")
    with pytest.raises(UnusableVideosError) as caught:
        validate_data(action_data.config(), tmp_path)
    message = str(caught.value)
    assert message.startswith("the videos of 10 of 12 rows are not there; nothing was decoded.")
    assert f"below {action_data.folder} (media_dir is not set, so that paths start from dataset_dir)" in message
    assert str(action_data.folder / "2.mp4") in message
    assert "Set media_dir to" in message
    report = ValidationReport.read(tmp_path / "report.json")
    assert report.quarantine_reasons == {"missing": 10, "not_checked": 2}
    assert report.summary == "no clips of 12 videos, 12 in quarantine, 0 leaks"


def ucf101(data_set: DataSet, shared_data: Path) -> DataSet:
    source = shared_data / "annotations" / "IVCP" / "ucf101_train.json"
    return data_set.add("actions", [], file_name=str(source), columns={"messages": "messages"}, tags=UCF_TAGS)


def test_ucf101_without_its_videos(
    shared_data: Path, data_set: DataSet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "videos").mkdir()
    config = ucf101(data_set, shared_data).config(media_dir=str(tmp_path / "videos"), action_token="<ACT>")
    with caplog.at_level(logging.INFO), pytest.raises(UnusableVideosError) as caught:
        validate_data(config, tmp_path / "out")
    message = str(caught.value)
    assert "the videos of 9537 of 9537 rows are not there" in message
    assert f"below {tmp_path / 'videos'} (media_dir)" in message
    assert f"{tmp_path / 'videos'} exists, {tmp_path / 'videos' / 'UCF101'} does not" in message
    assert len(message.splitlines()) < 8
    assert len(caplog.records) < 5
    assert len(read_lines(tmp_path / "out" / "quarantine.jsonl", QuarantinedClip)) == 9537


def test_ucf101_with_videos_under_its_names(shared_data: Path, data_set: DataSet, tmp_path: Path) -> None:
    """Two rows of each of its classes, as they are; each video has bytes of its own, and all look the same."""
    rows = json.loads((shared_data / "annotations" / "IVCP" / "ucf101_train.json").read_text())
    by_class: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in reversed(rows):
        by_class[row["action_label"]].append(row)
    chosen = [row for found in by_class.values() for row in (found[0], found[-1])]
    content = make_clip(tmp_path / "video.mp4", num_frames=4, size=(48, 64)).read_bytes()
    for number, row in enumerate(chosen):
        video = tmp_path / "videos" / row["videos"][0]
        video.parent.mkdir(parents=True, exist_ok=True)
        video.write_bytes(content + struct.pack(">I4sI", 12, b"free", number))  # a box that decoders pass over
    data_set.add("actions", chosen, columns={"messages": "messages"}, tags=UCF_TAGS)
    report = validate_data(
        data_set.config(media_dir=str(tmp_path / "videos"), action_token="<ACT>", val_size=0.1), tmp_path / "out"
    )
    assert (report.num_rows, report.labels.num_classes, report.num_quarantined) == (202, 101, 0)
    assert (report.num_duplicates, report.num_leaks, report.num_clips["val"]) == (0, 0, 20)
    assert report.num_groups["train"] + report.num_groups["val"] == 202
    assert min(report.label_counts["train"]) == 1
    assert report.num_contradicting_looks == 1  # all of them show the same, and have 101 classes
    assert report.contradictions[0].num_clips == 202


def test_video_espresso_is_one_message(shared_data: Path, data_set: DataSet, tmp_path: Path) -> None:
    source = shared_data / "annotations" / "IVCP" / "VideoEspresso_stage3.json"
    data_set.add("actions", [], file_name=str(source), formatting="sharegpt")
    with pytest.raises(AnnotationError) as caught:
        validate_data(data_set.config(media_dir=str(tmp_path)), tmp_path / "out")
    assert "none of its 752 rows has action_label" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
