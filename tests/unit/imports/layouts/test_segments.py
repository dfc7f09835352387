"""Tables whose cells name segments of a video."""

import pytest

from ivcp.data.problems import AnnotationError
from tests.unit.imports.layout_files import write

GMDCSA = """File Name,Length (seconds),Time of Recording,Attire,Description, Classes
01.mp4,06,Day,Shirt,"Falling, then lying", Falling (SW)[3.4 to 6]:; Sitting[0 to 3.4]
02.mp4,10,Day,Shirt,Picking a book, Sitting[9.2 to 10]; Standing[2.4 to 3.6; 6.6 to 7.9; Walking[3.6 to 5.2; 7.9 to 9.2]
"""


def test_segments_in_cells(importer, videos):
    root = videos([f"Subject {n}/ADL/0{v}.mp4" for n in (1, 2) for v in (1, 2)])
    tables = [write(root / f"Subject {n}" / "ADL.csv", GMDCSA) for n in (1, 2)]
    annotations = importer("segments", *tables, videos=str(root))
    names = annotations.labels.label_names
    first = [row for row in annotations.rows if row.group == "Subject 1"]
    assert [(names[row.label], row.start_seconds, row.end_seconds) for row in first] == [
        ("Falling (SW)", 3.4, 6.0),
        ("Sitting", 0.0, 3.4),
        ("Sitting", 9.2, 10.0),
        ("Standing", 2.4, 3.6),
        ("Standing", 6.6, 7.9),
        ("Walking", 3.6, 5.2),
        ("Walking", 7.9, 9.2),
    ]


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("Sitting[9.7 to 3]; Standing[0 to 1]", "0 <= start < end"),
        ("Reading; Sitting[0 to 8]", "Reading has no times"),
        ("Sitting[1.2.3 to 4]; Standing[0 to 1]", r"Sitting\[1.2.3 to 4\]: expected two times in seconds"),
    ],
)
def test_segments_that_cannot_be(importer, videos, cell, message):
    root = videos(["subject1_ADL/01.mp4"])
    table = write(root / "subject1_ADL.csv", f"File Name, Classes\n01.mp4,{cell}\n")
    with pytest.raises(AnnotationError, match=message):
        importer("segments", table)
