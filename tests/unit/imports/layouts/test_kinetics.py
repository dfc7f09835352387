"""Kinetics' tables."""

import pytest

from ivcp.data.problems import AnnotationError
from tests.unit.imports.layout_files import by_video, write

KINETICS = """label,youtube_id,time_start,time_end,split
abseiling,_4YTwq0-73Y,326,336,{0}
"testifying, in court",-3B32lodo2M,59,69,{0}
abseiling,2LUWoVCW1UA,10,20,{0}
"""


def test_kinetics(importer, videos, tmp_path):
    root = videos(
        ["train/abseiling/_4YTwq0-73Y_000326_000336.mp4", "-3B32lodo2M.mkv", "val/2LUWoVCW1UA_000010_000020.mp4"]
    )
    train = write(tmp_path / "train.csv", "\n".join(KINETICS.format("train").splitlines()[:3]) + "\n")
    head, *_, last = KINETICS.format("validate").splitlines()
    val = write(tmp_path / "val.csv", f"{head}\n{last}\n")
    with pytest.raises(AnnotationError, match="split 'validate'"):
        importer("kinetics", train, val, videos=str(root))
    found = by_video(importer("kinetics", train, val, videos=str(root), use_split={"validate": "test"}))
    assert found == {
        "_4YTwq0-73Y_000326_000336.mp4": ("abseiling", "train", "_4YTwq0-73Y", None, None),
        "-3B32lodo2M.mkv": ("testifying, in court", "train", "-3B32lodo2M", 59.0, 69.0),
        "2LUWoVCW1UA_000010_000020.mp4": ("abseiling", "test", "2LUWoVCW1UA", None, None),
    }
