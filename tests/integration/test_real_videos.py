"""Validation and preparation on real files, which are not part of the project."""

import csv
import json
from pathlib import Path

import pytest

from components.artifacts import Clip, QuarantinedClip, read_lines
from components.config import from_flat
from components.data_validation.validate import validate_data
from components.video import VideoInfo, decode, probe
from components.video_decoders import decord_reads
from tests.data_sets import DataSet, sharegpt_row

ENCRYPTED = {"mp4parse-rust/av1-clearkey-cbcs-video.mp4"}  # FFmpeg decodes it to rubbish without a word
DAMAGED = {"decord/corrupted.mp4"}  # ffmpeg goes on behind the damage


def read_index(folder: Path) -> list[dict[str, str]]:
    with (folder / "INDEX.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_file_gets_a_verdict(shared_data: Path, data_set: DataSet, tmp_path: Path) -> None:
    folder = shared_data / "clips"
    index = read_index(folder)
    rows = [sharegpt_row(entry["path"], number % 2) for number, entry in enumerate(index)]
    config = data_set.add("actions", rows).config(media_dir=str(folder), max_invalid_fraction=0.3)
    report = validate_data(config, tmp_path)
    frames = {clip.row: clip.num_frames for clip in read_lines(tmp_path / "annotations.jsonl", Clip)}
    reasons = {clip.row: clip.reason for clip in read_lines(tmp_path / "quarantine.jsonl", QuarantinedClip)}
    assert len(frames) + len(reasons) == report.num_rows == len(index) == 88
    unusable = {entry["path"] for entry in index if entry["decode_rc"] != "0"} | ENCRYPTED | DAMAGED
    assert {index[row]["path"] for row in reasons} == unusable
    for row, num_frames in frames.items():
        assert num_frames == int(index[row]["decoded_frames"]), index[row]["path"]


def test_decord_is_used_only_where_it_agrees_with_pyav(shared_data: Path) -> None:
    folder = shared_data / "clips"
    checked = 0
    for entry in read_index(folder):
        if entry["decode_rc"] != "0" or entry["vcodec"] != "h264" or int(entry["width"]) > 640:
            continue
        path = folder / entry["path"]
        info = probe(path) if entry["path"] not in DAMAGED else None
        if info is None or not decord_reads(info):
            continue
        indices = [info.num_frames // 5, info.num_frames // 2, info.num_frames - 1]
        assert (decode(path, indices, info=info).frames == _by_pyav(path, indices, info)).all(), path
        checked += 1
    assert checked > 20


def _by_pyav(path: Path, indices: list[int], info: VideoInfo) -> object:
    from dataclasses import replace

    decoded = decode(path, indices, info=replace(info, codec="another, so that PyAV reads it"))
    assert decoded.backend == "pyav"
    return decoded.frames


@pytest.mark.slow
def test_a_real_set_keeps_its_groups_apart(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "actions"
    entries = [entry for entry in read_index(folder) if entry["set"] == "gmdcsa24"]
    rows = [sharegpt_row(entry["path"], entry["label"], group=entry["group"]) for entry in entries]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    (tmp_path / "dataset_info.json").write_text(
        json.dumps({"falls": {"file_name": "rows.json", "formatting": "sharegpt"}})
    )
    config = from_flat({"dataset": "falls", "dataset_dir": str(tmp_path), "media_dir": str(folder), "test_size": 0.25})
    report = validate_data(config, tmp_path / "out")
    assert (report.num_quarantined, report.leaks) == (0, ())
    assert report.num_groups["test"] >= 1
    assert min(report.label_counts["train"]) > 0
