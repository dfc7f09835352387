"""Pictures of clips for the report: each shows the middle of a clip that can be used, or how loud a sound is
over time."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ivcp.records import MediumKind, first_path
from ivcp.settings import VideoConfig
from ivcp.validation.catalog import Catalog, Video, read_video
from ivcp.video import VideoError, load_clip, load_image
from ivcp.video.sounds import Waveform, read_sound
from ivcp.video.workers import run_in_workers

_SIDE = 160
"""Pixels of its longer side."""
_HEIGHT = 90
"""Pixels, of the picture of a sound."""
_BAR, _PAPER = (44, 98, 160), (238, 241, 245)
_RATE = 8000
"""Samples a second of a sound that is only shown."""


@dataclass(frozen=True)
class ThumbnailJob:
    """A clip to show."""

    number: int
    """Its id in the catalog."""
    kind: MediumKind
    video: Video
    start_seconds: float | None
    end_seconds: float | None


class _Small:
    """Reads one frame of a clip, at the size of a thumbnail."""

    video = VideoConfig(video_num_frames=1)

    def frame_size(self, height: int, width: int) -> tuple[int, int]:
        scale = min(1.0, _SIDE / max(height, width))
        return max(1, round(height * scale)), max(1, round(width * scale))

    image_size = frame_size


def choose_thumbnails(catalog: Catalog, *, per_class: int, at_most: int) -> None:
    """Marks the first usable clips of each class, of other videos where there are some; training clips only.

    Clips without classes are all of one.
    """
    catalog.ask(
        "INSERT OR IGNORE INTO thumbnail (clip) SELECT id FROM (SELECT id, class, ROW_NUMBER() OVER ("
        "PARTITION BY class ORDER BY id) AS place FROM (SELECT MIN(id) AS id, class "
        f"FROM {catalog.classes_of_clips} WHERE reason IS NULL AND split = 'train' AND video IS NOT NULL "
        "GROUP BY class, video)) WHERE place <= ? ORDER BY place, class LIMIT ?",
        per_class,
        at_most,
    )


def take_thumbnails(
    catalog: Catalog, *, timeout_seconds: float, num_workers: int | None, memory_gigabytes: float
) -> None:
    """Takes the pictures that were marked, in worker processes; one that cannot be taken is left out."""
    if not catalog.number("SELECT COUNT(*) FROM thumbnail"):
        return
    taken = run_in_workers(
        take_thumbnail,
        _jobs(catalog),
        timeout_seconds=timeout_seconds,
        num_workers=num_workers,
        memory_gigabytes=memory_gigabytes,
        preload=(__name__,),
    )
    for job, picture in taken:
        if not isinstance(picture, VideoError):
            catalog.ask("UPDATE thumbnail SET jpeg = ? WHERE clip = ?", picture, job.number)


def take_thumbnail(job: ThumbnailJob) -> bytes:
    """The frame in the middle of a clip, the image, or the loudness of a sound over time, as JPEG.

    Raises:
        VideoError: it cannot be decoded.
    """
    if job.kind == "audio":
        picture = _loudness(read_sound(first_path(job.video), rate=_RATE).waveform)
    elif job.kind == "image":
        picture = load_image(first_path(job.video), processor=_Small()).frames[0]
    else:
        clip = load_clip(job.video, processor=_Small(), start_seconds=job.start_seconds, end_seconds=job.end_seconds)
        picture = clip.frames[0]
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=75)
    return file.getvalue()


def _loudness(waveform: Waveform) -> NDArray[np.uint8]:
    """A bar for each stretch of a sound as high as its loudest sample, (height, width, 3)."""
    peaks = [float(np.abs(part).max(initial=0.0)) for part in np.array_split(waveform, _SIDE)]
    heights = np.minimum(1.0, np.array(peaks)) * (_HEIGHT / 2)
    rows = np.abs(np.arange(_HEIGHT) - (_HEIGHT - 1) / 2)
    is_bar = rows[:, np.newaxis] <= np.maximum(0.5, heights)
    return np.where(is_bar[..., np.newaxis], np.array(_BAR), np.array(_PAPER)).astype(np.uint8)


def _jobs(catalog: Catalog) -> Iterator[ThumbnailJob]:
    marked = (
        "SELECT clip.id, video.kind, video.name, clip.start, clip.stop FROM thumbnail "
        "JOIN clip ON clip.id = thumbnail.clip JOIN video ON video.id = clip.video WHERE clip.id > ?"
    )
    for batch in catalog.in_batches(marked):
        for number, kind, name, start, stop in batch:
            yield ThumbnailJob(number, kind, read_video(name), start, stop)
