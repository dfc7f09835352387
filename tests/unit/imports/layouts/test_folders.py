"""A folder of videos for each class."""

import os

import pytest

from ivcp.data.problems import AnnotationError
from ivcp.imports.listing import ImportRefusedError, LayoutOptions
from tests.unit.imports.layout_files import by_video


def test_a_folder_per_class(importer, videos):
    root = videos(
        [
            "run/a.mp4",
            "run/deep/b.AVI",
            "run/.DS_Store",
            "stand up/c.webm",
            "stand up/notes.txt",
            "loose.mp4",
            "run/._a.mp4",
            "__MACOSX/run/._a.mp4",
            ".Trash/d.mp4",
        ]
    )
    found = by_video(importer("folders", root))
    assert {name: row[:2] for name, row in found.items()} == {
        "a.mp4": ("run", "train"),
        "b.AVI": ("run", "train"),
        "c.webm": ("stand up", "train"),
    }
    assert any("1 video(s) lie outside" in note for note in importer.result.notes)
    assert importer.rows()[0]["action_label"] == 0


def test_a_folder_per_split_and_class(importer, videos):
    found = by_video(importer("folders", videos(["train/run/a.mp4", "train/sit/b.mp4", "val/run/c.mp4"])))
    assert {name: row[1] for name, row in found.items()} == {"a.mp4": "train", "b.mp4": "train", "c.mp4": "val"}
    assert importer.result.rows == {"mine_train": 2, "mine_val": 1}


def test_folders_without_classes(importer, videos):
    with pytest.raises(ImportRefusedError, match="expected a folder of videos per class, it has 1 files"):
        importer("folders", videos(["a.mp4"]))


def test_names_in_another_encoding(importer, videos):
    root = videos(["run/a.mp4", "sit/b.mp4", "sit/c.mp4"])
    (root / "sit" / "b.mp4").rename(root / "sit" / os.fsdecode("跑.mp4".encode("gbk")))
    with pytest.raises(AnnotationError, match=r"row 2: 'sit/\\udcc5\\udcdc.mp4' is no name in UTF-8: rename the file"):
        importer("folders", root)
    (root / "sit").rename(root / os.fsdecode("坐".encode("gbk")))
    with pytest.raises(
        AnnotationError, match=r"rows 1, 2: label '\\udcd7\\udcf8' is no text in UTF-8: rename its folder"
    ):
        importer("folders", root)


def test_a_group_pattern(importer, videos):
    root = videos(["run/person1_a.mp4", "run/person2_a.mp4", "sit/person1_b.mp4"])
    importer("folders", root, options=LayoutOptions(group_pattern=r"person(\d+)"))
    assert [row["group"] for row in importer.rows()] == ["1", "2", "1"]
    assert not any("no groups" in note for note in importer.result.notes)


def test_a_group_pattern_that_does_not_fit(importer, videos):
    root = videos(["run/person1_a.mp4", "sit/b.mp4"])
    with pytest.raises(AnnotationError, match=r"row 1: --group-pattern 'person\\d' finds no group in 'sit/b.mp4'"):
        importer("folders", root, options=LayoutOptions(group_pattern=r"person\d"))
    with pytest.raises(ImportRefusedError, match=r"--group-pattern 'person\(' is no regular expression"):
        importer("folders", root, options=LayoutOptions(group_pattern="person("))


def test_without_groups_the_risk_is_said(importer, videos):
    importer("folders", videos(["run/a.mp4", "sit/b.mp4"]))
    assert any(note.startswith("no groups: each video is one of its own") for note in importer.result.notes)
