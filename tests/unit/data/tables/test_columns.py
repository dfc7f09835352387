"""Parquet, Arrow, and the folders that `datasets` saves."""

from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
from pyarrow import parquet

from ivcp.data.registry import AnnotationError, DatasetInfo, data_files, read_rows
from ivcp.data.tables import columns

ROWS: list[dict[str, Any]] = [
    {"videos": [f"{number}.mp4"], "action_label": number % 3, "split": None if number else "train"}
    for number in range(700)
]
TABLE = pa.Table.from_pylist(ROWS)


def write_arrow(path: Path, *, is_stream: bool) -> None:
    new = pa.ipc.new_stream if is_stream else pa.ipc.new_file
    with new(str(path), TABLE.schema) as writer:
        writer.write_table(TABLE, max_chunksize=300)


def test_parquet(tmp_path: Path) -> None:
    parquet.write_table(TABLE, tmp_path / "rows.parquet", row_group_size=100)
    assert list(read_rows(tmp_path / "rows.parquet")) == ROWS


@pytest.mark.parametrize("is_stream", [True, False])
def test_arrow(tmp_path: Path, is_stream: bool) -> None:
    write_arrow(tmp_path / "rows.arrow", is_stream=is_stream)
    assert list(read_rows(tmp_path / "rows.arrow")) == ROWS


def test_a_data_set_that_was_saved(tmp_path: Path) -> None:
    saved = datasets.Dataset.from_list(ROWS).shuffle(seed=1)
    saved.save_to_disk(tmp_path / "saved", num_shards=3)
    files = data_files(DatasetInfo(file_name="saved"), str(tmp_path))
    assert [file.name for file in files] == [f"data-0000{number}-of-00003.arrow" for number in range(3)]
    assert [row for file in files for row in read_rows(file)] == saved.to_list()


def test_splits_that_were_saved(tmp_path: Path) -> None:
    parts = {"train": datasets.Dataset.from_list(ROWS[:5]), "validation": datasets.Dataset.from_list(ROWS[5:7])}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    (file,) = data_files(DatasetInfo(file_name="saved", split="validation"), str(tmp_path))
    assert list(read_rows(file)) == ROWS[5:7]
    with pytest.raises(AnnotationError, match="saved has the splits train, validation, 'val' is none: set split in"):
        data_files(DatasetInfo(file_name="saved", split="val"), str(tmp_path))


def test_a_folder_that_only_looks_saved(tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "state.json").write_text('{"_data_files": [{"name": "x"}]}')
    with pytest.raises(AnnotationError, match=r"state.json: expected _data_files in it, as the save_to_disk of"):
        data_files(DatasetInfo(file_name="saved"), str(tmp_path))


def test_files_that_are_none(tmp_path: Path) -> None:
    for name, kind in (("a.parquet", "Parquet"), ("a.arrow", "Arrow")):
        with pytest.raises(AnnotationError, match=f"{name} does not exist: expected an annotation file"):
            list(read_rows(tmp_path / name))
        for content in (b"", b"PAR1 and ARROW1 are how such files begin"):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(AnnotationError, match=f"{name} is no {kind} file, or a damaged one: "):
                list(read_rows(tmp_path / name))
    parquet.write_table(TABLE, tmp_path / "cut.parquet")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "cut.parquet").read_bytes()[:-100])
    with pytest.raises(AnnotationError, match=r"cut.parquet is no Parquet file, or a damaged one"):
        list(read_rows(tmp_path / "cut.parquet"))


def test_two_columns_of_one_name(tmp_path: Path) -> None:
    twice = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["videos", "videos"])
    with pa.ipc.new_file(str(tmp_path / "a.arrow"), twice.schema) as writer:
        writer.write_table(twice)
    with pytest.raises(AnnotationError, match=r"a.arrow: two columns are named videos: rename one of them"):
        list(read_rows(tmp_path / "a.arrow"))


def test_rows_become_values_some_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "_AT_ONCE", 7)
    parquet.write_table(TABLE, tmp_path / "a.parquet")
    write_arrow(tmp_path / "a.arrow", is_stream=True)
    for name in ("a.parquet", "a.arrow"):
        assert list(read_rows(tmp_path / name)) == ROWS
