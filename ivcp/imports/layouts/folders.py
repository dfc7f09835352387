"""A folder per class, perhaps below a folder per split."""

from __future__ import annotations

from collections import Counter
from pathlib import Path, PurePosixPath

from ivcp.imports.listing import ImportRefusedError, Listing, Reading, Sample


def read_folders(reading: Reading) -> Listing:
    """`<class>/…/<video>` or `<split>/<class>/…/<video>`; the source is the videos' folder.

    Raises:
        ImportRefusedError: there are no folders with videos.
    """
    root = Path(reading.videos.root)
    split_first = _has_split_folders(reading)
    depth = 2 if split_first else 1
    placed = [video for video in reading.videos.videos if len(PurePosixPath(video).parts) > depth]
    if not placed:
        raise ImportRefusedError(
            f"{root}: expected a folder of videos per class, it has {len(reading.videos.files)} files, "
            f"{len(reading.videos.videos)} of them videos"
        )
    samples = []
    for row, video in enumerate(placed):
        parts = PurePosixPath(video).parts
        split = reading.splits[parts[0].lower()] if split_first else None
        samples.append(Sample(video=video, label=parts[depth - 1], file=root, row=row, split=split))
    return Listing(tuple(samples), notes=_left_out(reading, len(placed)))


def _has_split_folders(reading: Reading) -> bool:
    tops = {PurePosixPath(video).parts[0].lower() for video in reading.videos.videos if "/" in video}
    return bool(tops) and tops <= set(reading.splits)


def _left_out(reading: Reading, num_placed: int) -> tuple[str, ...]:
    notes = []
    if loose := len(reading.videos.videos) - num_placed:
        notes.append(f"{loose} video(s) lie outside the classes' folders and are left out")
    others = set(reading.videos.files) - set(reading.videos.videos)
    suffixes = Counter(PurePosixPath(file).suffix or PurePosixPath(file).name for file in others)
    if suffixes:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common(5))
        notes.append(f"files that are no videos by their suffix are left out: {kinds}")
    return tuple(notes)
