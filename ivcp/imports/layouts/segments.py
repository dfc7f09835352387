"""CSV files whose cells list segments: `Sitting[0 to 1]; Sleeping[2 to 8]`, as GMDCSA24 has them.

https://github.com/ekramalam/GMDCSA24-A-Dataset-for-Human-Fall-Detection-in-Videos
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ivcp.imports.listing import Listing, Reading, Sample, Source
from ivcp.imports.tables import read_rows

_COLUMNS = {"path": "File Name", "segments": "Classes"}
_CLASS = re.compile(r"\s*([^\[\];]+?)\s*(?:\[([^\]]*)\]?\s*:?\s*)?(?:;|$)")
_SPAN = re.compile(r"\s*(\d+\.?\d*|\.\d+)\s*(?:to|-|\s)\s*(\d+\.?\d*|\.\d+)\s*")


def read_segments(reading: Reading) -> Listing:
    """A row per segment; `Subject 1/ADL.csv` lists the videos of `Subject 1/ADL/`, and `Subject 1` is the group.

    A file whose name says both, `subject1_ADL.csv`, lists those of `subject1_ADL/`, and `subject1` is the group.

    Raises:
        ImportRefusedError: a file has other columns.
    """
    return Listing(tuple(sample for source in reading.sources for sample in _read_file(reading, source)))


def _read_file(reading: Reading, source: Source) -> Iterator[Sample]:
    columns = _COLUMNS | dict(reading.options.columns or {})
    folder, group = _folder_and_group(reading, source.path)
    for cells in read_rows(source.path, reading, needed=tuple(columns), optional=(), columns=columns):
        row = int(cells["row"])
        for label, start, end in _segments(reading, source.path, row, cells["segments"]):
            yield Sample(
                video=f"{folder}/{cells['path']}",
                label=label,
                file=source.path,
                row=row,
                split=source.split,
                group=group,
                start_seconds=start,
                end_seconds=end,
            )


def _folder_and_group(reading: Reading, file: Path) -> tuple[str, str]:
    folder = file.with_suffix("")
    root = Path(reading.videos.root).absolute()
    below = folder.absolute().relative_to(root) if folder.absolute().is_relative_to(root) else Path(folder.name)
    return below.as_posix(), below.parts[0] if len(below.parts) > 1 else below.name.partition("_")[0]


def _segments(reading: Reading, file: Path, row: int, cell: str) -> Iterator[tuple[str, float, float]]:
    for label, spans in _split_classes(cell):
        if not spans:
            reading.problem(file, row, f"{label} has no times: expected {label}[start to end]")
        for span in spans:
            times = _SPAN.fullmatch(span)
            if times:
                yield label, float(times[1]), float(times[2])
            else:
                reading.problem(file, row, f"{label}[{span}]: expected two times in seconds")


def _split_classes(cell: str) -> Iterator[tuple[str, list[str]]]:
    """Each class with its spans; a bracket that is never closed ends where the next class begins."""
    repaired = re.sub(r"(\[[^\]\[]*?);(?=\s*[A-Za-z][^\[\];]*\[)", r"\1];", cell)
    for found in _CLASS.finditer(repaired):
        yield found[1], [span for span in (found[2] or "").split(";") if span.strip()]
