"""Pictures of clips for the report: each shows the middle of a clip that can be used."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image

from ivcp.records import MediumKind, first_path
from ivcp.settings import VideoConfig
from ivcp.validation.catalog import Catalog, Video, read_video
from ivcp.video import VideoError, load_clip, load_image
from ivcp.video.workers import run_in_workers

_SIDE = 160
"""Pixels of its longer side."""


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
        "INSERT OR IGNORE INTO thumbnail (clip) SELECT id FROM (SELECT id, label, ROW_NUMBER() OVER ("
        "PARTITION BY label ORDER BY id) AS place FROM (SELECT MIN(id) AS id, label FROM clip "
        "WHERE reason IS NULL AND split = 'train' AND video IS NOT NULL GROUP BY label, video)) WHERE place <= ? "
        "ORDER BY place, label LIMIT ?",
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
    """The frame in the middle of a clip, or the image, as JPEG.

    Raises:
        VideoError: it cannot be decoded.
    """
    if job.kind == "image":
        clip = load_image(first_path(job.video), processor=_Small())
    else:
        clip = load_clip(job.video, processor=_Small(), start_seconds=job.start_seconds, end_seconds=job.end_seconds)
    file = io.BytesIO()
    Image.fromarray(clip.frames[0]).save(file, "JPEG", quality=75)
    return file.getvalue()


def _jobs(catalog: Catalog) -> Iterator[ThumbnailJob]:
    marked = (
        "SELECT clip.id, video.kind, video.name, clip.start, clip.stop FROM thumbnail "
        "JOIN clip ON clip.id = thumbnail.clip JOIN video ON video.id = clip.video WHERE clip.id > ?"
    )
    for batch in catalog.in_batches(marked):
        for number, kind, name, start, stop in batch:
            yield ThumbnailJob(number, kind, read_video(name), start, stop)
