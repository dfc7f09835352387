import os
from pathlib import Path

import pytest

from ivcp import storage


def test_local_paths_come_back_unchanged(tmp_path: Path):
    file = tmp_path / "a.txt"
    file.write_text("hé")
    assert storage.local_path(file) == file
    assert storage.local_path(str(file)) == file
    assert storage.local_path(file.as_uri()) == file
    assert storage.read_text(str(file)) == "hé"
    assert storage.exists(file)
    assert not storage.exists(tmp_path / "b.txt")


def test_missing_local_path_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="nothing-here does not exist"):
        storage.local_path(tmp_path / "nothing-here")
    with pytest.raises(FileNotFoundError, match="cannot upload"):
        storage.upload(tmp_path / "nothing-here", str(tmp_path / "b"))


def test_upload_copies_locally(tmp_path: Path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "deep" / "a.txt").write_text("a")
    storage.upload(tmp_path / "in", str(tmp_path / "out"))
    storage.upload(tmp_path / "in" / "deep" / "a.txt", str(tmp_path / "new" / "b.txt"))
    assert (tmp_path / "out" / "deep" / "a.txt").read_text() == "a"
    assert (tmp_path / "new" / "b.txt").read_text() == "a"


@pytest.mark.parametrize(
    ("uri", "parts", "expected"),
    [
        ("s3://bucket/data", ("videos", "a.mp4"), "s3://bucket/data/videos/a.mp4"),
        ("s3://bucket", ("./a.mp4",), "s3://bucket/a.mp4"),
        ("s3://bucket/data/", ("../videos/a.mp4",), "s3://bucket/videos/a.mp4"),
        ("data/x", ("../videos", "a.mp4"), "data/x/../videos/a.mp4"),
        (Path("/data"), ("a.mp4",), "/data/a.mp4"),
    ],
)
def test_join(uri: str | Path, parts: tuple[str, ...], expected: str):
    assert storage.join(uri, *parts) == expected


def test_an_s3_uri_that_became_a_path_is_refused():
    with pytest.raises(ValueError, match="damaged s3:// URI"):
        storage.local_path(Path("s3://bucket/key"))


def test_a_uri_without_bucket_is_refused():
    with pytest.raises(ValueError, match="names no bucket"):
        storage.exists("s3:///key")


def test_a_link_to_a_folder_around_it_is_not_followed(tmp_path: Path):
    (tmp_path / "data" / "videos").mkdir(parents=True)
    (tmp_path / "data" / "videos" / "a.mp4").write_bytes(b"abc")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.mp4").write_bytes(b"b")
    for number in range(3):
        (tmp_path / "data" / "videos" / f"up{number}").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "also linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "itself").symlink_to(tmp_path / "data" / "itself")
    os.mkfifo(tmp_path / "data" / "pipe")
    assert storage.file_sizes(tmp_path / "data") == {"videos/a.mp4": 3, "linked/b.mp4": 1, "also linked/b.mp4": 1}


def test_a_name_that_is_too_long_is_a_missing_file(tmp_path: Path):
    assert not storage.exists(tmp_path / ("x" * 300))
    with pytest.raises(FileNotFoundError, match="does not exist"):
        storage.local_path(tmp_path / ("x" * 300))
