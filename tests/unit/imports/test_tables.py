"""Tables with a row for each clip, to the annotations that a run reads."""

import pytest

from ivcp.imports.listing import ImportRefusedError, LayoutOptions
from tests.unit.imports.layout_files import by_video, write

CSV = """file,class,from,to,person,part
a.mp4,run,1.5,0:00:04.5,p1,train
a.mp4,sit,4.5,6,p1,train
b.mp4,sit,,,p2,dev
"""


def test_a_csv_with_columns_of_its_own(importer, videos, tmp_path):
    columns = {"path": "file", "label": "class", "start": "from", "end": "to", "group": "person", "split": "part"}
    root = videos(["a.mp4", "b.mp4"])
    table = write(tmp_path / "table.csv", CSV)
    annotations = importer("csv", table, videos=str(root), options=LayoutOptions(columns=columns))
    assert [(row.start_seconds, row.end_seconds) for row in annotations.rows] == [(1.5, 4.5), (4.5, 6.0), (None, None)]
    assert by_video(annotations)["b.mp4"] == ("sit", "val", "p2", None, None)


def test_a_tsv_in_gbk_beside_its_videos(importer, videos):
    root = videos(["甲.mp4", "乙.mp4"])
    (root / "表.tsv").write_bytes("path\tlabel\n甲.mp4\t跑步\n乙.mp4\t坐下\n".encode("gbk"))
    with pytest.raises(ImportRefusedError, match="--encoding gbk"):
        importer("csv", root / "表.tsv")
    found = by_video(importer("csv", root / "表.tsv", options=LayoutOptions(encoding="gbk"), language="zh"))
    assert found["甲.mp4"][0] == "跑步"
    assert "跑步" in importer.rows()[0]["conversations"][1]["value"]


def test_what_a_table_leaves_open(importer, videos, tmp_path):
    root = videos(["a.mp4", "b.mp4", "c.mp4"])
    table = write(
        tmp_path / "table.csv",
        " path ;label;start;end;group;split\n\na.mp4;run ;nan;;nan;\n"
        "b.mp4; sit;NaN;2;p1;Train\n;;;;;\nc.mp4;run;;;;VAL\n",
    )
    found = by_video(importer("csv", table, videos=str(root)))
    assert found["a.mp4"] == ("run", "train", str(root / "a.mp4"), None, None)
    assert found["b.mp4"] == ("sit", "train", "p1", None, 2.0)
    assert found["c.mp4"][:2] == ("run", "val")


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("path,label,label\na.mp4,run,sit\n", {}, r"table.csv line 1: two columns are named label"),
        ('path,label\na.mp4,"run\n', {}, r"table.csv lines 2 to 2|table.csv line 2: no line of a CSV file"),
        ("path label\na.mp4 run\n", {}, r"its header is one column, 'path label': say --delimiter ' '"),
        ("path;label\na.mp4;run\n", {"delimiter": ","}, r"its header is one column, 'path;label': say --delimiter ';'"),
        ("path,label\na.mp4,run\n", {"delimiter": "::"}, r"--delimiter '::': expected one character, or tab"),
    ],
)
def test_tables_that_are_refused(importer, videos, tmp_path, text, options, message):
    table = write(tmp_path / "table.csv", text)
    with pytest.raises(ImportRefusedError, match=message):
        importer("csv", table, videos=str(videos(["a.mp4"])), options=LayoutOptions(**options))
