"""Kinetics: CSV files with label, youtube_id, time_start, time_end, split.

https://github.com/cvdfoundation/kinetics-dataset
"""

from __future__ import annotations

from collections.abc import Iterator

from ivcp.imports.listing import Listing, Reading, Sample, Source
from ivcp.imports.tables import read_rows, seconds_of

_NEEDED, _OPTIONAL = ("label", "youtube_id", "time_start", "time_end"), ("split",)


def read_kinetics(reading: Reading) -> Listing:
    """Clips named `<id>_<start 6 digits>_<end 6 digits>`, or whole videos `<id>` with the span; in whatever folder.

    Raises:
        ImportRefusedError: a file has other columns.
    """
    return Listing(tuple(sample for source in reading.sources for sample in _read_file(reading, source)))


def _read_file(reading: Reading, source: Source) -> Iterator[Sample]:
    for cells in read_rows(source.path, reading, needed=_NEEDED, optional=_OPTIONAL):
        row, video_id = int(cells["row"]), cells["youtube_id"]
        try:
            start, end = (seconds_of(cells[name], name) or 0.0 for name in ("time_start", "time_end"))
        except ValueError as error:
            reading.problem(source.path, row, str(error))
            continue
        trimmed = f"{video_id}_{int(start):06}_{int(end):06}"
        clip, whole = reading.videos.with_stem(trimmed), reading.videos.with_stem(video_id)
        is_whole = clip is None and whole is not None
        yield Sample(
            video=clip or whole or f"{trimmed}.mp4",
            label=cells["label"],
            file=source.path,
            row=row,
            split=reading.split(cells.get("split"), source.path, row) or source.split,
            group=video_id,
            start_seconds=start if is_whole else None,
            end_seconds=end if is_whole else None,
        )
