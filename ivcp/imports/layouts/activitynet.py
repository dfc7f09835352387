"""ActivityNet-style JSON: segments with a label, per video.

http://activity-net.org/download.html; mmaction2's localization files have the same without `database` and `subset`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ivcp.data.values import is_missing
from ivcp.imports.listing import ImportRefusedError, Listing, Reading, Sample, Source, read_source_json


def read_activitynet(reading: Reading) -> Listing:
    """A row per segment; videos are `v_<id>` or `<id>`, in whatever folder.

    Raises:
        ImportRefusedError: a file is no such JSON.
    """
    samples: list[Sample] = []
    without = 0
    for source in reading.sources:
        for row, (video_id, video) in enumerate(_videos(source).items()):
            segments = video.get("annotations") or []
            without += not segments
            samples += _read_video(reading, source, row, video_id, video, segments)
    note = f"{without} video(s) have no segments (ActivityNet's testing subset has none) and are left out"
    return Listing(tuple(samples), notes=(note,) if without else ())


def _videos(source: Source) -> Mapping[str, Mapping[str, Any]]:
    content = read_source_json(source.path)
    videos = content.get("database", content) if isinstance(content, dict) else None
    if not isinstance(videos, dict) or not all(isinstance(v, dict) and "annotations" in v for v in videos.values()):
        raise ImportRefusedError(f"{source.path}: expected database: {{<video>: {{annotations: [...]}}}}")
    return videos


def _read_video(
    reading: Reading, source: Source, row: int, video_id: str, video: Mapping[str, Any], segments: list[Any]
) -> Iterator[Sample]:
    bare = video_id.removeprefix("v_")
    found = next((f for stem in (video_id, f"v_{bare}", bare) if (f := reading.videos.with_stem(stem))), None)
    split = reading.split(video.get("subset"), source.path, row) or source.split
    for segment in segments:
        try:
            start, end = map(float, segment["segment"])
            label = segment["label"]
            if is_missing(label) or not isinstance(label, str | int):
                raise TypeError("no name")
        except (KeyError, TypeError, ValueError):
            reading.problem(source.path, row, f"{segment!r}: expected segment: [start, end] and label")
            continue
        yield Sample(
            video=found or f"v_{bare}.mp4",
            label=str(label),
            file=source.path,
            row=row,
            split=split,
            group=bare,
            start_seconds=start,
            end_seconds=end,
        )
