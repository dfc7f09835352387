import json
from pathlib import Path

import pytest

from ivcp import storage
from ivcp.data.prepared.reader import PreparedSamples
from ivcp.demo.tiny_model import build_tiny_model
from ivcp.preparation import plan
from ivcp.preparation.prepare import prepare_clips
from ivcp.records import Clip, QuarantinedClip, read_lines
from ivcp.validation.data_fingerprint import data_fingerprint
from ivcp.validation.validate import validate_data
from tests.data_sets import DataSet
from tests.s3_api.proxy import Faults
from tests.s3_api.server import S3Server


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
    assert len(PreparedSamples(index, "train", verify_checksums=True)) == 11
    assert prepare_clips(config, **places, index_path=tmp_path / "again.json") == index
    before = data_fingerprint(config)
    storage.upload(action_data.folder / "1.mp4", "s3://bucket/data/1.mp4")  # the same bytes
    assert data_fingerprint(config) == before
    storage.upload(action_data.folder / "1.mp4", "s3://bucket/data/2.mp4")
    assert data_fingerprint(config) != before


def test_faults_while_shards_are_uploaded(
    action_data: DataSet, s3: S3Server, faults: Faults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost connections and busy answers change no byte; a lost server ends the run, and the next one goes on."""
    monkeypatch.setattr(plan, "CLIPS_PER_SHARD", 2)
    model = build_tiny_model(tmp_path / "model", warm_up=False)
    config = action_data.config(model_name_or_path=str(model), near_duplicate_frames=0, test_size=0.25)
    validate_data(config, tmp_path / "validated")

    def prepare(name: str) -> None:
        prepare_clips(
            config,
            validated_dir=tmp_path / "validated",
            shards_uri=f"s3://bucket/{name}",
            index_path=tmp_path / f"{name}.json",
        )

    def stored(name: str) -> dict[str, bytes]:
        faults.cuts_upload = faults.is_busy = lambda request: False
        folder = storage.local_path(f"s3://bucket/{name}")
        files = (path for path in folder.rglob("*") if path.is_file())
        return {path.name: path.read_bytes().replace(f"bucket/{name}".encode(), b"") for path in files}

    def puts(name: str) -> list[str]:
        return [request.path for request in faults.requests if request.method == "PUT" and f"/{name}/" in request.path]

    prepare("whole")
    whole = stored("whole")
    receipts = {name for name in whole if name.endswith(".json")} - {"index.json"}
    assert len(receipts) >= 4

    faults.cuts_upload = lambda request: request.method == "PUT" and request.number % 5 == 0
    faults.is_busy = lambda request: request.number % 5 == 2
    prepare("shaken")
    assert len(puts("shaken")) > len(whole)
    assert stored("shaken") == whole

    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    faults.is_busy = lambda request: len(puts("lost")) > 4
    with pytest.raises(ConnectionError, match="s3://bucket/lost/"):
        prepare("lost")
    left = stored("lost")
    assert receipts & left.keys()
    assert "index.json" not in left

    faults.requests.clear()
    prepare("lost")
    again = {path.rsplit("/", 1)[1] for path in puts("lost")}
    assert not again & receipts & left.keys()
    assert stored("lost") == whole
