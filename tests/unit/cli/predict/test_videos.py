"""What words of the command line stand for."""

import pytest

from ivcp.cli.predict.videos import find_videos


@pytest.fixture
def folder(videos, monkeypatch):
    names = ("b.mp4", "a.MKV", "deep/er/c.webm", "notes.txt", ".hidden/d.mp4", ".e.mp4", "clip[1].mp4")
    root = videos(names)
    monkeypatch.chdir(root)
    return root


def found(*words, has_server=False):
    return find_videos(words, has_server=has_server)


def test_a_folder_stands_for_the_videos_below_it(folder):
    assert found(str(folder)) == [f"{folder}/{name}" for name in ("a.MKV", "b.mp4", "clip[1].mp4", "deep/er/c.webm")]
    assert found("deep/") == ["deep/er/c.webm"]


def test_a_quoted_pattern_is_expanded_and_sorted(folder):
    assert found("*.mp4") == ["b.mp4", "clip[1].mp4"]
    assert found("**/*.webm") == ["deep/er/c.webm"]
    assert found("d*") == ["deep/er/c.webm"]  # a folder that matches


def test_a_file_may_look_like_a_pattern(folder):
    assert found("clip[1].mp4") == ["clip[1].mp4"]


def test_each_video_stands_once_where_it_came_first(folder):
    words = ("notes.txt", "b.mp4", "./b.mp4", str(folder / "deep" / ".." / "b.mp4"), "*.mp4", ".")
    assert found(*words) == ["notes.txt", "b.mp4", "clip[1].mp4", "./a.MKV", "./deep/er/c.webm"]


def test_a_missing_file_is_found_where_it_is_read(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    assert found("gone.mp4", "~/b.mp4", f"file://{folder}/clip%5B1%5D.mp4") == [
        "gone.mp4",
        f"{folder}/b.mp4",
        f"{folder}/clip[1].mp4",
    ]


def test_addresses_are_left_as_they_are(folder):
    addresses = ["s3://bucket/a.mp4", "https://host/b.mp4?x=[1]", "HTTP://host/c.mp4"]
    assert found(*addresses, addresses[0], has_server=True) == addresses
    assert found("s3://bucket/a.mp4") == ["s3://bucket/a.mp4"]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("https://host/b.mp4", "download it, and give its path; or ask a server that may fetch it, with --url"),
        ("ftp://host/b.mp4", "got an address"),
        ("none*.mp4", r"none\*\.mp4 matches no file"),
        (".hidden", r"\.hidden holds no video: expected files that end with \.3gp, "),
    ],
)
def test_a_word_that_stands_for_nothing(folder, word, message):
    if word == ".hidden":
        (folder / ".hidden" / "d.mp4").unlink()
    with pytest.raises(ValueError, match=message):
        found(word)
