from pathlib import Path

import pytest

from ivcp.data.paths import PathError, resolve


@pytest.mark.parametrize(
    ("path", "resolved"),
    [
        ("a/b.mp4", "/media/a/b.mp4"),
        ("/abs/b.mp4", "/abs/b.mp4"),
        ("s3://bucket/b.mp4", "s3://bucket/b.mp4"),
        ("file:///abs/a%20b%23.mp4", "/abs/a b#.mp4"),
        ("file:///abs/a#1.mp4", "/abs/a#1.mp4"),
        ("file://localhost/abs/b.mp4", "/abs/b.mp4"),
        ("~/b.mp4", "/home/somebody/b.mp4"),
        ("~b.mp4", "/media/~b.mp4"),
        ("12:30.mp4", "/media/12:30.mp4"),
    ],
)
def test_paths_that_can_be_read(monkeypatch: pytest.MonkeyPatch, path: str, resolved: str) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert resolve(path, "/media") == resolved
    assert resolve(path, "file:///media") == resolved


def test_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve("a.mp4", "media") == str(tmp_path / "media" / "a.mp4")
    assert resolve("../a.mp4", "s3://bucket/media") == "s3://bucket/a.mp4"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("https://x.org/a.mp4", "is an address on the web: download the file and write its path, or copy it to S3"),
        ("HTTP://x.org/a.mp4", "is an address on the web"),
        ("gs://bucket/a.mp4", r"is an address that cannot be read here \(gs\): expected a path, or s3://bucket/name"),
        ("s3a://bucket/a.mp4", "is no address on S3: write s3://bucket/name"),
        ("s3:/bucket/a.mp4", "is no address on S3: write s3://bucket/name"),
        ("data:video/mp4;base64,AAAA", "is a file's content and not its path"),
        ("file://server/a.mp4", "is no file of this machine: expected file:///folder/file"),
        ("file:///C:/a.mp4", "is no file of this machine"),
        ("file:/a.mp4", "is no file of this machine"),
        ("C:\\videos\\a.mp4", "is a file of a Windows machine: write the path that it has here"),
        ("d:/videos/a.mp4", "is a file of a Windows machine"),
        ("\\\\server\\a.mp4", "is a file of a Windows machine"),
        ("videos\\a.mp4", "is a path of Windows: write / between folders, 'videos/a.mp4'"),
        ("folder\\" + "a" * 5000, "is a path of Windows"),
        ("a\0.mp4", "holds a line break or a zero character: remove it"),
        ("a.mp4\n", "holds a line break or a zero character: remove it"),
    ],
)
def test_paths_that_cannot_be_read(path: str, message: str) -> None:
    with pytest.raises(PathError, match=message):
        resolve(path, "/media")


def test_a_file_that_has_a_backslash_in_its_name(tmp_path: Path) -> None:
    (tmp_path / "videos\\a.mp4").touch()
    assert resolve("videos\\a.mp4", str(tmp_path)) == str(tmp_path / "videos\\a.mp4")
