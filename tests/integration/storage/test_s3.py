import time
from pathlib import Path

import pytest

from ivcp import storage
from tests.ports import free_port
from tests.s3_api.server import S3Server


def _folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "deep").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "deep" / "weights.bin").write_bytes(bytes(range(256)) * 1000)
    return folder


def test_a_folder_comes_back_as_it_went(s3: S3Server, tmp_path: Path):
    storage.upload(_folder(tmp_path), "s3://bucket/round/model")
    copy = storage.local_path("s3://bucket/round/model")
    assert copy.name == "model"
    assert (copy / "config.json").read_text() == "{}"
    assert (copy / "deep" / "weights.bin").read_bytes() == bytes(range(256)) * 1000
    assert storage.exists("s3://bucket/round/model")
    assert storage.exists("s3://bucket/round/model/config.json")


def test_a_single_object_keeps_its_name(s3: S3Server, tmp_path: Path):
    (tmp_path / "clip one.mp4").write_bytes(b"video")
    storage.upload(tmp_path / "clip one.mp4", "s3://bucket/single/clip one.mp4")
    copy = storage.local_path("s3://bucket/single/clip one.mp4", cache_dir=tmp_path / "other")
    assert copy.name == "clip one.mp4"
    assert copy.is_relative_to(tmp_path / "other")
    assert copy.read_bytes() == b"video"


def test_the_cache_is_used_until_the_object_changes(s3: S3Server, tmp_path: Path):
    file = tmp_path / "a.txt"
    file.write_text("old")
    storage.upload(file, "s3://bucket/change/a.txt")
    first = storage.local_path("s3://bucket/change/a.txt")
    written = first.stat().st_mtime_ns
    assert storage.local_path("s3://bucket/change/a.txt") == first
    assert first.stat().st_mtime_ns == written
    file.write_text("new")
    storage.upload(file, "s3://bucket/change/a.txt")
    assert storage.local_path("s3://bucket/change/a.txt").read_text() == "new"
    assert first.read_text() == "old"
    assert storage.read_text("s3://bucket/change/a.txt") == "new"


@pytest.mark.slow
def test_more_objects_than_one_page(s3: S3Server, tmp_path: Path):
    (tmp_path / "many").mkdir()
    for number in range(1100):
        (tmp_path / "many" / f"{number:04d}.txt").write_text(str(number))
    storage.upload(tmp_path / "many", "s3://bucket/many")
    assert len(list(storage.local_path("s3://bucket/many").iterdir())) == 1100


def test_missing_things_are_named(s3: S3Server):
    assert not storage.exists("s3://bucket/nothing")
    with pytest.raises(FileNotFoundError, match="s3://bucket/nothing: no such object"):
        storage.local_path("s3://bucket/nothing")
    with pytest.raises(FileNotFoundError, match="s3://bucket/nothing"):
        storage.read_text("s3://bucket/nothing")
    with pytest.raises(FileNotFoundError, match="'no-bucket' does not exist"):
        storage.local_path("s3://no-bucket/a")


def test_wrong_credentials_fail_at_once(s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    (tmp_path / "a").write_text("a")
    started = time.monotonic()
    with pytest.raises(PermissionError, match="s3://bucket/a: the server refuses access"):
        storage.local_path("s3://bucket/a")
    with pytest.raises(PermissionError, match="credentials"):
        storage.upload(tmp_path / "a", "s3://bucket/a")
    assert time.monotonic() - started < 5


def test_no_credentials_are_an_error_of_their_own(s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(PermissionError, match="there are no S3 credentials, and the server refuses requests without"):
        storage.exists("s3://bucket/a")


def test_a_server_that_is_not_there(s3: S3Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    started = time.monotonic()
    with pytest.raises(ConnectionError, match="AWS_ENDPOINT_URL"):
        storage.local_path("s3://bucket/a")
    assert time.monotonic() - started < 15
