from pathlib import Path

import pytest

from ivcp.cli.paths import checked_model_dir, checked_videos, new_file, new_folder


def test_a_model_directory(tmp_path):
    assert checked_model_dir(str(tmp_path)) == str(tmp_path)
    assert checked_model_dir("~") == str(Path.home())
    assert checked_model_dir("s3://bucket/model") == "s3://bucket/model"
    (tmp_path / "model.safetensors").touch()
    for word, message in [
        (str(tmp_path / "nowhere"), "does not exist: give a directory that `ivcp run` or `ivcp export` wrote"),
        (str(tmp_path / "model.safetensors"), "is a file: give a directory"),
        ("https://example.com/model", "--model-dir https://example.com/model: expected a path or an s3:// URI"),
    ]:
        with pytest.raises(ValueError, match="--model-dir") as caught:
            checked_model_dir(word)
        assert message in str(caught.value)


def test_videos(tmp_path):
    assert checked_videos(["a.mp4", "~/b.mp4"]) == [Path("a.mp4"), Path.home() / "b.mp4"]
    assert checked_videos([str(tmp_path), "x" * 300]) == [tmp_path, Path("x" * 300)]  # each costs itself alone
    for word in ("https://example.com/a.mp4", "s3://bucket/a.mp4"):
        with pytest.raises(ValueError, match=f"video {word}: expected a path of this machine, got an address"):
            checked_videos([word])


def test_what_is_to_be_written(tmp_path):
    (tmp_path / "file").touch()
    assert new_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert new_folder(Path("~/a")) == Path.home() / "a"
    assert new_file(tmp_path / "c" / "d.yaml").parent.is_dir()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match=r"expected a folder to write, but .*file is a file"):
            new_folder(path)
    with pytest.raises(ValueError, match="is a folder: give the path of a file to write"):
        new_file(tmp_path)
    with pytest.raises(ValueError, match="s3://bucket/a is an address: give a path of this machine"):
        new_folder(Path("s3://bucket/a"))
