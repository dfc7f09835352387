import json
from pathlib import Path

from ivcp import storage
from ivcp.records import Clip, read_lines
from ivcp.validation.validate import validate_data
from tests.data_sets import DataSet
from tests.s3_api.server import S3Server


def _splits(data: DataSet, out: Path, **settings: object) -> dict[str | None, str]:
    validate_data(data.config(dataset_dir="s3://bucket/splits", near_duplicate_frames=0, **settings), out)
    return {clip.video_sha256: clip.split for clip in read_lines(out / "annotations.jsonl", Clip)}


def test_data_on_s3_keep_their_splits_there(action_data: DataSet, s3: S3Server, tmp_path: Path) -> None:
    storage.upload(action_data.folder, "s3://bucket/splits")
    first = _splits(action_data, tmp_path / "first", test_size=0.25)
    header, *groups = storage.read_text("s3://bucket/splits/group_splits.jsonl").splitlines()
    assert json.loads(header)["format_version"] == 1
    assert [json.loads(line)["group"] for line in groups] == [f"person {number}" for number in range(4)]

    rows = json.loads((action_data.folder / "actions.json").read_text())
    renamed = [row | {"group": f"actor {row['group']}"} for row in rows[1:]]
    (action_data.folder / "actions.json").write_text(json.dumps(renamed[::-1]))
    storage.upload(action_data.folder / "actions.json", "s3://bucket/splits/actions.json")
    second = _splits(action_data, tmp_path / "second", test_size=0.25, seed=1)
    assert second.items() < first.items()
    assert len(storage.read_text("s3://bucket/splits/group_splits.jsonl").splitlines()) == 9

    third = {
        clip.video_sha256: clip.split
        for clip in _validated(action_data, tmp_path / "third", splits_file="s3://bucket/splits/group_splits.jsonl")
    }
    assert third == second  # the same data in a folder, and their splits on S3


def _validated(data: DataSet, out: Path, **settings: object) -> list[Clip]:
    validate_data(data.config(near_duplicate_frames=0, **settings), out)
    return read_lines(out / "annotations.jsonl", Clip)
