import json
from pathlib import Path

from components import storage
from components.artifacts import Clip, QuarantinedClip, read_lines
from components.data_validation.validate import validate_data
from components.prepared_clips import PreparedClips
from components.preprocessing.prepare import prepare_clips
from components.run_start.data_fingerprint import data_fingerprint
from pipelines.demo.tiny_model import build_tiny_model
from tests.data_sets import DataSet


def test_registry_rows_videos_and_shards_on_s3(action_data: DataSet, s3: object, tmp_path: Path) -> None:
    entry = {"actions": {"cloud_file_name": "s3://bucket/rows/actions.json", "formatting": "sharegpt"}}
    (action_data.folder / "dataset_info.json").write_text(json.dumps(entry))
    storage.upload(action_data.folder / "actions.json", "s3://bucket/rows/actions.json")
    (action_data.folder / "11.mp4").unlink()
    storage.upload(action_data.folder, "s3://bucket/data")
    model = build_tiny_model(tmp_path / "model", warm_up=False)
    config = action_data.config(dataset_dir="s3://bucket/data", model_name_or_path=str(model), max_invalid_fraction=0.1)
    validate_data(config, tmp_path / "validated")
    (missing,) = read_lines(tmp_path / "validated" / "quarantine.jsonl", QuarantinedClip)
    assert (missing.video, missing.reason) == ("s3://bucket/data/11.mp4", "missing")
    clip = read_lines(tmp_path / "validated" / "annotations.jsonl", Clip)[0]
    assert (clip.video, clip.content_hash) == ("s3://bucket/data/0.mp4", f"etag:{storage.etag(clip.video)}")
    places = {"validated_dir": tmp_path / "validated", "shards_uri": "s3://bucket/shards"}
    index = prepare_clips(config, **places, index_path=tmp_path / "index.json")
    assert index.root_uri.startswith("s3://bucket/shards/")
    assert len(PreparedClips(index, "train", verify_checksums=True)) == 11
    assert prepare_clips(config, **places, index_path=tmp_path / "again.json") == index
    before = data_fingerprint(config)
    storage.upload(action_data.folder / "1.mp4", "s3://bucket/data/1.mp4")  # the same bytes
    assert data_fingerprint(config) == before
    storage.upload(action_data.folder / "1.mp4", "s3://bucket/data/2.mp4")
    assert data_fingerprint(config) != before
