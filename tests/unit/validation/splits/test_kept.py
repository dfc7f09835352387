import json
from dataclasses import replace
from pathlib import Path

import pytest

from ivcp.data.problems import AnnotationError
from ivcp.settings import from_flat
from ivcp.validation.catalog import Catalog
from ivcp.validation.rows.read import read_annotations
from ivcp.validation.splits.assign import assign_splits
from ivcp.validation.splits.kept import keep_splits, read_header
from ivcp.validation.validate import validate_data
from tests.changing_rows import count, look_at_videos, rows_of, split_clips, write
from tests.data_sets import DataSet
from tests.unit.validation.splits.test_assign import lines_of


def test_a_folder_that_cannot_be_written_is_named_before_videos_are_looked_at(tmp_path: Path) -> None:
    write(tmp_path, rows_of(10))
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"file/splits cannot be written .* Set splits_file to a file or s3:// object"):
        split_clips(tmp_path, test_size=0.2, splits_file=str(tmp_path / "file" / "splits"))
    elsewhere = tmp_path / "notes" / "splits.jsonl"
    assert count(split_clips(tmp_path, test_size=0.2, splits_file=str(elsewhere)))["test"] == 6
    assert elsewhere.is_file()
    assert not (tmp_path / "group_splits.jsonl").exists()


def test_where_nothing_is_cut_a_folder_may_be_read_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, rows_of(4))
    (tmp_path / "file").touch()
    assert count(split_clips(tmp_path, splits_file=str(tmp_path / "file" / "splits")))["train"] == 12
    assert "cannot be written" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("group,split\n", "does not begin as a file of splits"),
        ('{"format_version": 9}\n', "does not begin as a file of splits"),
        ('{"format_version": 1}\n{"group": "a"}\n', "line 2 is no group with its split"),
    ],
)
def test_a_file_of_something_else_is_not_overwritten(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path, rows_of(4))
    (tmp_path / "group_splits.jsonl").write_text(text)
    with pytest.raises(AnnotationError, match=message):
        split_clips(tmp_path, test_size=0.2)
    assert (tmp_path / "group_splits.jsonl").read_text() == text


def test_runs_at_once_agree_or_the_later_one_is_told(tmp_path: Path) -> None:
    write(tmp_path, rows_of(10))
    config = from_flat({"dataset": "actions", "dataset_dir": str(tmp_path), "test_size": 0.3})
    with Catalog() as same, Catalog() as other:
        for catalog, seed in ((same, 42), (other, 3)):
            settings = config.model_copy(update={"train": config.train.model_copy(update={"seed": seed})})
            read_annotations(settings, catalog)
        first = split_clips(tmp_path, test_size=0.3)
        keep_splits(same, config.data)
        with pytest.raises(AnnotationError, match="while this run looked at the videos, another one gave group person"):
            keep_splits(other, config.data)
    assert split_clips(tmp_path, test_size=0.3) == first


def test_runs_at_once_that_name_groups_otherwise_agree_on_their_videos(tmp_path: Path) -> None:
    """Without a group column each video is a group of its own: other names, the same videos."""
    rows = rows_of(10)
    write(tmp_path, [replace(row, group="") for row in rows])
    config = from_flat({"dataset": "actions", "dataset_dir": str(tmp_path), "test_size": 0.3})
    with Catalog() as catalog:
        read_annotations(config, catalog)
        look_at_videos(catalog)
        write(tmp_path, rows)
        split_clips(tmp_path, test_size=0.3)
        with pytest.raises(AnnotationError, match=r"another one gave group person .*, of which a video is in"):
            keep_splits(catalog, config.data)


def test_each_data_folder_has_one_file_for_all_its_data_sets(tmp_path: Path) -> None:
    write(tmp_path, rows_of(10))
    first = split_clips(tmp_path, test_size=0.3)
    write(tmp_path, rows_of(14)[30:], name="more")
    both = split_clips(tmp_path, dataset="actions,more", test_size=0.3)
    assert first.items() < both.items()
    assert split_clips(tmp_path, dataset="more", test_size=0.3).items() < both.items()
    assert len(lines_of(tmp_path)) == 15


def test_giving_anew_forgets_where_a_video_was_before(tmp_path: Path) -> None:
    write(tmp_path, rows_of(12))
    split_clips(tmp_path, test_size=0.5)
    renamed = [replace(row, group=f"new {row.group}") for row in rows_of(12)]
    write(tmp_path, renamed)
    anew = split_clips(tmp_path, test_size=0.5, resplit=True, seed=9)
    assert split_clips(tmp_path, test_size=0.5) == anew
    assert read_header(from_flat({"dataset_dir": str(tmp_path)}).data).resplits == 0  # these names are new


def test_refused_data_give_no_split(action_data: DataSet, tmp_path: Path) -> None:
    for number in range(4):
        (action_data.folder / f"{number}.mp4").write_text("no video")
    with pytest.raises(ValueError, match="have no usable video"):
        validate_data(action_data.config(test_size=0.25), tmp_path / "out")
    assert [line for line in lines_of(action_data.folder) if "group" in line] == []
    validate_data(action_data.config(test_size=0.25, max_invalid_fraction=0.5), tmp_path / "out")
    assert len(lines_of(action_data.folder)) == 5


def test_a_cut_is_the_same_before_and_after_videos_are_looked_at(tmp_path: Path) -> None:
    write(tmp_path, rows_of(20))
    config = from_flat({"dataset": "actions", "dataset_dir": str(tmp_path), "test_size": 0.2})
    with Catalog() as catalog:
        read_annotations(config, catalog)
        before = catalog.ask("SELECT id, split FROM clip").fetchall()
        assign_splits(catalog, config)
        assert catalog.ask("SELECT id, split FROM clip").fetchall() == before
    assert json.loads((tmp_path / "group_splits.jsonl").read_text()) == {"format_version": 1, "resplits": 0}
