"""HMDB51 with its official split files, `<class>_test_split<1-3>.txt`.

https://serre-lab.clps.brown.edu/resource/hmdb-a-large-human-motion-database/, "three splits".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ivcp.imports.listing import ImportRefusedError, Listing, Reading, Sample, read_source_text

_PARTS = {"1": "train", "2": "test"}


def read_hmdb51(reading: Reading) -> Listing:
    """One of the three official splits; the source is the folder with the split files.

    A line is `<video> <0, 1 or 2>`: not in this split, training, test. Clips of a class that were cut from one film
    are a group: the official splits keep them together.

    Raises:
        ImportRefusedError: the folder has no such files.
    """
    folder = reading.one_source("the folder with <class>_test_split1.txt and so on")
    ending = f"_test_split{reading.options.split_number or 1}.txt"
    files = sorted(file for file in folder.glob(f"*{ending}") if not file.name.startswith("."))
    if not files:
        raise ImportRefusedError(f"{folder}: expected files <class>{ending}, there are none")
    unused: Counter[str] = Counter()
    samples = [s for file in files for s in _read_file(reading, file, file.name.removesuffix(ending), unused)]
    note = f"{unused.total()} videos are in no part of this split (0 in the official files)"
    return Listing(tuple(samples), notes=(note,) if unused else ())


def _read_file(reading: Reading, file: Path, label: str, unused: Counter[str]) -> Iterator[Sample]:
    for row, line in enumerate(read_source_text(file).splitlines()):
        if not line.strip():
            continue
        name, _, part = line.strip().rpartition(" ")
        if not name or part not in ("0", *_PARTS):
            reading.problem(file, row, f"{line.strip()!r}: expected a video and 0, 1 or 2")
        elif part == "0":
            unused[label] += 1
        else:
            film = name.partition(f"_{label}_")[0]
            group, split = f"{label}/{film}", reading.splits[_PARTS[part]]
            yield Sample(video=f"{label}/{name.strip()}", label=label, file=file, row=row, split=split, group=group)
