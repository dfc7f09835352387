"""mmaction2's lists: `<video> <label>` and `<frames folder> <number of frames> <label>`.

https://mmaction2.readthedocs.io/en/latest/user_guides/prepare_dataset.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ivcp.data.labels import class_id
from ivcp.imports.listing import ImportRefusedError, Listing, Reading, Sample, Source, read_source_text

_SEVERAL = re.compile(r"\.\w{2,4}( \d+)+$")
_MOST_FRAMES = 10_000_000
"""Of one clip; a line that has more has something else there."""
_FRAME_NAME = "img_{:05}.jpg"


def read_video_lists(reading: Reading) -> Listing:
    """`<video> <label>`; a path may hold spaces."""
    return Listing(tuple(sample for source in reading.sources for sample in _read_videos(reading, source)))


def read_frame_lists(reading: Reading) -> Listing:
    """`<folder> <number of frames> <label>`, or with an offset after the folder; frames are named by `frame_name`.

    Raises:
        ImportRefusedError: the name of a frame has no place for its number.
    """
    template = reading.options.frame_name or _FRAME_NAME
    try:
        if template.format(1) == template.format(2):
            raise IndexError("no place for the number")
    except (IndexError, KeyError, ValueError) as error:
        raise ImportRefusedError(f"--frame-name {template!r}: expected a name as {_FRAME_NAME} ({error})") from error
    return Listing(tuple(sample for source in reading.sources for sample in _read_frames(reading, source, template)))


def _lines(reading: Reading, source: Source) -> Iterator[tuple[int, str]]:
    text = read_source_text(source.path, encoding=reading.options.encoding, takes_encoding=True)
    return ((row, line.strip()) for row, line in enumerate(text.splitlines()) if line.strip())


def _read_videos(reading: Reading, source: Source) -> Iterator[Sample]:
    for row, line in _lines(reading, source):
        video, _, label = line.rpartition(" ")
        if not video or not label.isdecimal():
            reading.problem(source.path, row, "expected <video> <label>, e.g. clip.mp4 3")
        elif _SEVERAL.search(video):
            reading.problem(source.path, row, "several labels: a clip is classified as exactly one class")
        else:
            yield Sample(video=video.strip(), label=label, file=source.path, row=row, split=source.split)


def _read_frames(reading: Reading, source: Source, template: str) -> Iterator[Sample]:
    for row, line in _lines(reading, source):
        folder, *numbers = line.split(" ")
        if not 2 <= len(numbers) <= 3 or any(class_id(number) is None for number in numbers):
            reading.problem(source.path, row, "expected <folder> [<offset>] <number of frames> <label>")
            continue
        offset = int(numbers[0]) if len(numbers) == 3 else 0
        num_frames = int(numbers[-2])
        if not 0 < num_frames <= _MOST_FRAMES:
            reading.problem(source.path, row, f"{num_frames} frames: expected 1 to {_MOST_FRAMES}")
            continue
        frames = tuple(f"{folder}/{template.format(offset + number)}" for number in range(1, num_frames + 1))
        yield Sample(video=frames, label=numbers[-1], file=source.path, row=row, split=source.split)
