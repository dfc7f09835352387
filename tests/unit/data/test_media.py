from typing import Any

import pytest

from ivcp.data.media import group_of_video, read_videos
from ivcp.data.problems import RowError


@pytest.mark.parametrize(
    ("value", "videos"),
    [
        ("a.mp4", ["/m/a.mp4"]),
        (["a.mp4", "file:///b.mp4"], ["/m/a.mp4", "/b.mp4"]),
        ('["a.mp4"]', ["/m/a.mp4"]),
        ([["1.jpg", "2.jpg"]], [("/m/1.jpg", "/m/2.jpg")]),
        ([{"path": "a.mp4", "bytes": None}], ["/m/a.mp4"]),
    ],
)
def test_videos(value: Any, videos: list[Any]) -> None:
    assert read_videos({"videos": value}, "videos", "/m") == videos


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "videos is missing: expected the path of a video, or a list with one$"),
        ([], "videos is missing"),
        (float("nan"), "videos is missing"),
        ([None], r"videos = \[None\]: expected paths, or lists of frame images"),
        ([[]], r"videos = \[\[\]\]: expected paths"),
        ({"a": 1}, r"videos = \{'a': 1\}: expected paths"),
        ([{"path": "a.mp4", "bytes": b"x"}], "videos holds bytes: write them to a file, and name its path"),
        (["C:\\a.mp4"], r"videos: 'C:\\\\a.mp4' is a file of a Windows machine"),
    ],
)
def test_videos_that_are_none(value: Any, message: str) -> None:
    with pytest.raises(RowError, match=message):
        read_videos({"videos": value}, "videos", "/m")


def test_paths_of_one_kind_are_one_problem() -> None:
    kinds = set()
    for path in ("https://x/a.mp4", "https://y/b.mp4"):
        with pytest.raises(RowError) as caught:
            read_videos({"videos": path}, "videos", "/m")
        kinds.add(caught.value.kind)
    assert len(kinds) == 1


def test_groups_of_names() -> None:
    assert group_of_video("/x/v_Run_g07_c01.avi") == "v_Run_g07"
    assert group_of_video("/x/a.mp4") == "/x/a.mp4"
    assert group_of_video(("s3://m/f/1.jpg", "s3://m/f/2.jpg")) == "s3://m/f"
