"""UCF101 with its official lists (`classInd.txt`, `trainlist01.txt`, `testlist01.txt`, …).

https://www.crcv.ucf.edu/data/UCF101.php, "Train/Test Splits for Action Recognition".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ivcp.data.labels import class_id
from ivcp.imports.class_names import read_class_names
from ivcp.imports.listing import Listing, Reading, Sample, read_source_text
from ivcp.records import Labels, Split

_GROUP = re.compile(r"(v_\w+_g\d+)_c\d+$")


def read_ucf101(reading: Reading) -> Listing:
    """One of the three official splits; the source is the folder with the lists.

    The 25 groups of a class, g01 to g25, are clips of one source video each; the official splits keep them together.

    Raises:
        ImportRefusedError: a list is missing.
    """
    folder = reading.one_source("the folder with classInd.txt and trainlist01.txt")
    labels = read_class_names(folder / "classInd.txt").labels
    number = reading.options.split_number or 1
    lists = ((folder / f"{part}list{number:02}.txt", reading.splits[part]) for part in ("train", "test"))
    return Listing(tuple(s for file, split in lists for s in _read_list(reading, file, split, labels)), labels)


def _read_list(reading: Reading, file: Path, split: Split, labels: Labels) -> Iterator[Sample]:
    for row, line in enumerate(read_source_text(file).splitlines()):
        video, _, number = line.strip().partition(" ")
        if not video:
            continue
        label = video.partition("/")[0]
        if number and not _is_id_of(number, label, labels):
            reading.problem(file, row, f"{label} has the id {number}, in classInd.txt that is no such class")
            continue
        found = _GROUP.search(Path(video).stem)
        if not found:
            reading.problem(file, row, f"{video!r}: expected a name as v_{label}_g01_c01.avi")
            continue
        yield Sample(video=video, label=label, file=file, row=row, split=split, group=found[1])


def _is_id_of(number: str, label: str, labels: Labels) -> bool:
    """Whether the list's id, which counts from 1, is that of the folder's name."""
    place = class_id(number) or 0
    return place > 0 and labels.label_names[place - 1 : place] == (label,)
