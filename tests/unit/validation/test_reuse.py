"""When an earlier validation is used again, and when not."""

import os
from contextlib import suppress
from pathlib import Path

import pytest

from ivcp.records import Clip, read_lines
from ivcp.records.quarantine import UnusableVideosError
from ivcp.validation.reuse import FINGERPRINT_FILE, find_validated
from ivcp.validation.validate import validate_data
from tests.data_sets import DataSet, make_clip, sharegpt_row


def test_what_did_not_change_is_used_again_and_said_in_one_line(
    action_data: DataSet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = action_data.config(test_size=0.25)
    assert find_validated(config, tmp_path) is None
    report = validate_data(config, tmp_path)
    caplog.clear()
    with caplog.at_level("INFO"):
        assert find_validated(config, tmp_path) == report
    assert len(caplog.records) == 1
    assert "no video is read again" in caplog.text


def test_settings_that_validation_does_not_read_change_nothing(action_data: DataSet, tmp_path: Path) -> None:
    report = validate_data(action_data.config(), tmp_path)
    others = {"learning_rate": 0.1, "preprocessing_num_workers": 1, "prepared_frames": "jpeg", "flash_attn": "sdpa"}
    assert find_validated(action_data.config(**others), tmp_path) == report


@pytest.mark.parametrize(
    "changed",
    [
        {"val_size": 0.25},
        {"seed": 1},
        {"video_num_frames": 3},
        {"on_duplicates": "error"},
        {"action_token": "<OTHER>"},
        {"max_invalid_fraction": 0.0},
    ],
)
def test_settings_that_it_reads_count(action_data: DataSet, tmp_path: Path, changed: dict[str, object]) -> None:
    validate_data(action_data.config(), tmp_path)
    assert find_validated(action_data.config(**changed), tmp_path) is None


def test_a_video_that_was_replaced_or_came_back_is_noticed(action_data: DataSet, tmp_path: Path) -> None:
    config = action_data.config(max_invalid_fraction=0.5)
    validate_data(config, tmp_path)
    video = action_data.folder / "3.mp4"
    before = video.stat()
    make_clip(video, seed=99)
    os.utime(video, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert find_validated(config, tmp_path) is None

    video.rename(tmp_path / "away.mp4")
    assert validate_data(config, tmp_path).num_quarantined == 1
    assert find_validated(config, tmp_path) is not None
    (tmp_path / "away.mp4").rename(video)
    assert find_validated(config, tmp_path) is None


def test_rows_that_changed_are_noticed(action_data: DataSet, tmp_path: Path) -> None:
    validate_data(action_data.config(), tmp_path)
    rows = [sharegpt_row(f"{number}.mp4", ("run", "sit", "walk")[number % 3]) for number in range(11)]
    assert find_validated(action_data.add("actions", rows).config(), tmp_path) is None


def test_an_incomplete_folder_and_one_of_another_version_are_not_used(action_data: DataSet, tmp_path: Path) -> None:
    config = action_data.config()
    validate_data(config, tmp_path)
    (tmp_path / "report.json").write_text("{}")
    assert find_validated(config, tmp_path) is None
    validate_data(config, tmp_path)
    (tmp_path / "annotations.jsonl").unlink()
    assert find_validated(config, tmp_path) is None


def test_refused_data_are_looked_at_again(action_data: DataSet, tmp_path: Path) -> None:
    validate_data(action_data.config(), tmp_path)
    (action_data.folder / "0.mp4").unlink()
    with pytest.raises(UnusableVideosError):
        validate_data(action_data.config(), tmp_path)
    assert (tmp_path / "report.html").is_file()
    assert not (tmp_path / FINGERPRINT_FILE).exists()


def test_a_video_that_took_too_long_gets_another_chance(action_data: DataSet, tmp_path: Path) -> None:
    config = action_data.config(video_timeout_seconds=1e-6, max_invalid_fraction=1.0)
    with suppress(ValueError):  # where all of them did; on a busy machine the clock may see some too late
        validate_data(config, tmp_path)
    assert find_validated(config, tmp_path) is None


def test_what_is_used_again_is_what_was_written(action_data: DataSet, tmp_path: Path) -> None:
    config = action_data.config(test_size=0.25)
    validate_data(config, tmp_path)
    first = read_lines(tmp_path / "annotations.jsonl", Clip)
    validate_data(config, tmp_path)
    assert read_lines(tmp_path / "annotations.jsonl", Clip) == first
