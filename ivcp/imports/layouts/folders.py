"""A folder per class, perhaps below a folder per split."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path, PurePosixPath

from ivcp.imports.listing import ImportRefusedError, Listing, Reading, Sample

_WITHOUT_GROUPS = (
    "no groups: each video is one of its own, so that clips of one person or one recording can get into training and "
    "into test, and accuracy says too much. Where the paths say who or what it is, give --group-pattern, such as "
    r"'person(\d+)'"
)


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
    pattern = _group_pattern(reading)
    samples = []
    for row, video in enumerate(placed):
        parts = PurePosixPath(video).parts
        split = reading.splits[parts[0].lower()] if split_first else None
        group = pattern and _group(pattern, video, root, row, reading)
        samples.append(Sample(video=video, label=parts[depth - 1], file=root, row=row, split=split, group=group))
    notes = _left_out(reading, len(placed))
    return Listing(tuple(samples), notes=notes if pattern or split_first else (*notes, _WITHOUT_GROUPS))


def _group_pattern(reading: Reading) -> re.Pattern[str] | None:
    text = reading.options.group_pattern
    try:
        return None if text is None else re.compile(text)
    except re.error as error:
        raise ImportRefusedError(
            f"--group-pattern '{text}' is no regular expression: {error}; expected one that finds the group in a "
            r"video's path, such as 'person(\d+)'"
        ) from error


def _group(pattern: re.Pattern[str], video: str, root: Path, row: int, reading: Reading) -> str | None:
    found = pattern.search(video)
    if found is None:
        reading.problem(root, row, f"--group-pattern '{pattern.pattern}' finds no group in {video!r}")
        return None
    return found[1] if pattern.groups else found[0]


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
