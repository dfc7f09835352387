"""Validation and preparation on real files, which are not part of the project."""

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ivcp.records import Clip, QuarantinedClip, read_lines
from ivcp.settings import from_flat
from ivcp.validation.validate import validate_data
from ivcp.video.backends import Backend, decode_places, has_torchcodec
from ivcp.video.decoders import VideoReader
from tests.data_sets import DataSet, sharegpt_row

BACKENDS: tuple[Backend, ...] = ("pyav", "decord", "torchcodec")
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


def test_all_backends_agree_on_real_files(shared_data: Path) -> None:
    folder = shared_data / "clips"
    found: Counter[str] = Counter()
    for entry in read_index(folder):
        if entry["decode_rc"] != "0" or int(entry["width"]) > 640 or entry["path"] in ENCRYPTED | DAMAGED:
            continue
        with VideoReader.open(folder / entry["path"]) as reader:
            packets = reader.packets()
            places = sorted({packets.num_frames // 3, packets.num_frames * 2 // 3})
            whole, timeline = reader.decode_all(places, lambda frames: frames)
            assert len(timeline.seconds) == packets.num_frames == int(entry["decoded_frames"])
            if not (reader.can_seek and packets.are_exact):
                continue
            for backend in BACKENDS:
                decoded = decode_places(reader, packets, places, lambda frames: frames, backend)
                assert np.array_equal(decoded.frames, whole), (entry["path"], backend)
                found[decoded.backend] += 1
    assert min(found["pyav"], found["decord"]) > 15
    assert found["torchcodec"] > 15 or not has_torchcodec()


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
