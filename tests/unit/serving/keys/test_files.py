import os
from pathlib import Path

import pytest

from ivcp.serving.keys.files import KeyFilesError, digest_of, read_keys, version_of
from ivcp.serving.keys.ring import KeyRing

KEY = "0123456789abcdef"


@pytest.mark.parametrize("content", [KEY, f"{KEY}\n", f"{KEY}\r\n", f"\n  {KEY} \n\n"])
def test_white_space_around_a_key_is_not_part_of_it(tmp_path: Path, content: str):
    (tmp_path / "alice").write_bytes(content.encode())
    assert read_keys(tmp_path, {}) == ({"alice": digest_of(KEY.encode())}, [])


def test_a_file_is_a_key(tmp_path: Path):
    (tmp_path / "token").write_text(KEY)
    assert read_keys(tmp_path / "token", {}) == ({"token": digest_of(KEY.encode())}, [])


def test_hidden_files_and_folders_are_no_keys(tmp_path: Path):
    (tmp_path / "alice").write_text(KEY)
    for name in ("..2026_11_29", ".hidden", "..data_tmp"):
        (tmp_path / name).write_text("x")
    (tmp_path / "folder").mkdir()
    assert list(read_keys(tmp_path, {})[0]) == ["alice"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty: expected a key of at least 16 characters"),
        (b" \n", "is empty"),
        (b"short-secret-15", "holds a key of 15 characters: expected at least 16, as from `openssl rand"),
        (b"two words of secret", "holds no key: expected one line of printable ASCII"),
        (b"0123456789abcdef\n0123456789abcdeg\n", "holds no key: expected one line"),
        ("geheimes-schlüsselwort".encode(), "holds no key: expected one line of printable ASCII"),
        (b"secret\x00" * 10, "holds no key"),
        (b"s" * 5000, "is no key: expected an ordinary file of at most 4096 bytes"),
    ],
)
def test_what_is_no_key_is_named_and_not_repeated(tmp_path: Path, content: bytes, message: str):
    (tmp_path / "alice").write_bytes(content)
    (tmp_path / "bob").write_text(KEY)
    with pytest.raises(KeyFilesError, match=message) as caught:
        KeyRing(tmp_path, None)
    assert f"{tmp_path}/alice " in str(caught.value)
    for word in ("secret", "geheim", KEY, "sss"):
        assert word not in str(caught.value).replace("openssl", "")


def test_a_pipe_or_a_device_is_not_read(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "endless").symlink_to("/dev/zero")
    problems = read_keys(tmp_path, {})[1]
    assert ["is no key: expected an ordinary file" in problem for problem in problems] == [True, True]


def test_an_empty_folder_and_a_missing_one_are_mistakes(tmp_path: Path):
    with pytest.raises(KeyFilesError, match="holds no key: expected a file, or a folder with a file for each key"):
        KeyRing(tmp_path, None)
    with pytest.raises(FileNotFoundError):
        KeyRing(tmp_path / "nothing", None)


def test_a_broken_link_is_a_problem_and_no_end(tmp_path: Path):
    (tmp_path / "alice").write_text(KEY)
    (tmp_path / "bob").symlink_to("nowhere")
    assert len(version_of(tmp_path)) == 2
    keys, problems = read_keys(tmp_path, {"bob": b"before"})
    assert keys == {"alice": digest_of(KEY.encode()), "bob": b"before"}
    assert len(problems) == 1


def test_every_change_is_another_version(tmp_path: Path):
    file = tmp_path / "alice"
    file.write_text(KEY)
    versions = [version_of(tmp_path)]
    assert version_of(tmp_path) == versions[0]
    file.write_text(KEY[::-1])  # of the same length
    versions.append(version_of(tmp_path))
    os.utime(file, ns=(0, 0))
    versions.append(version_of(tmp_path))
    (tmp_path / "bob").write_text(KEY)
    versions.append(version_of(tmp_path))
    file.unlink()
    versions.append(version_of(tmp_path))
    assert len(set(versions)) == len(versions)
