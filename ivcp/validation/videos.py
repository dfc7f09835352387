"""Looks at every video and image of a run, and listens to every sound: decodes it, counts its frames or samples, hashes
its content and what it looks like."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ivcp import storage
from ivcp.records import MediumKind, first_path
from ivcp.tracking.progress import with_progress
from ivcp.validation.catalog import Catalog, Video, read_video
from ivcp.validation.frame_times import StoredTimes
from ivcp.video import VideoError, VideoInfo, frame_times, probe, read_image
from ivcp.video.decoders import Frames
from ivcp.video.perceptual import hash_frame, moments
from ivcp.video.sampling import Timeline
from ivcp.video.sounds import read_sound, read_track
from ivcp.video.workers import run_in_workers


@dataclass(frozen=True)
class Heard:
    """How sounds are heard."""

    rate: int = 16_000
    """Samples per second."""
    in_videos: bool = False
    """Whether the sound track of each video is heard too."""
    most_seconds: float | None = None
    """Of a sound; null is any."""


@dataclass(frozen=True)
class VideoJob:
    """A video to look at."""

    number: int
    """Its id in the catalog."""
    kind: MediumKind
    video: Video
    images_fps: float
    """Frames per second of frame images, which have none of their own."""
    num_looks: int
    """Frames that are hashed by what they look like."""
    heard: Heard = Heard()


@dataclass(frozen=True)
class CheckedVideo:
    """A video that can be used."""

    info: VideoInfo
    times: StoredTimes
    """When its frames are shown, by decoding; of a sound, its samples."""
    sha256: str
    """Of the file content, or of the hashes of all frame images."""
    content_hash: str
    """What `Clip.content_hash` is: `sha256:…` of local files, `etag:…` of S3 objects."""
    looks: tuple[int, ...]
    """Perceptual hashes of some frames; empty where all of them are uniform."""


def check_videos(
    catalog: Catalog,
    *,
    images_fps: float,
    num_looks: int,
    heard: Heard,
    timeout_seconds: float,
    num_workers: int | None,
    memory_gigabytes: float,
    preload: Sequence[str] = (),
) -> None:
    """Checks each video that is not known to be unusable, in worker processes; notes what was found in `catalog`.

    `preload` are modules that workers of later steps share.
    """
    total = catalog.number("SELECT COUNT(*) FROM video WHERE reason IS NULL")
    if not total:
        return
    checked = run_in_workers(
        check_video,
        _jobs(catalog, images_fps, num_looks, heard),
        timeout_seconds=timeout_seconds,
        num_workers=num_workers,
        memory_gigabytes=memory_gigabytes,
        preload=(__name__, *preload),
    )
    for job, found in with_progress(checked, total=total, what="videos checked"):
        _note(catalog, job, found)
    catalog.note_unusable()


def check_video(job: VideoJob) -> CheckedVideo:
    """Opens one video, decodes all of it once and hashes it.

    Raises:
        VideoError: it cannot be used.
    """
    if job.kind == "audio":
        return _check_sound(job)
    hashes: dict[int, int | None] = {}

    def look(number: int, frame: Frames) -> None:
        hashes[number] = hash_frame(frame)

    if job.kind == "image":
        info, pixels = read_image(first_path(job.video))
        look(0, pixels)
        timeline = Timeline.even(1, info.fps)
    else:
        info = probe(job.video, images_fps=job.images_fps)
        timeline = frame_times(job.video, info, look_at=set(moments(info.num_frames, job.num_looks)), look=look)
        if job.heard.in_videos:
            _check_track(job)
    wanted = moments(info.num_frames, job.num_looks)
    sha256 = _joined([_hash_file(part) for part in _parts(job.video)])
    return CheckedVideo(
        info=info,
        times=StoredTimes.of(timeline),
        sha256=sha256,
        content_hash=_content_hash(job.video, sha256),
        looks=tuple(hashes.get(number) or 0 for number in wanted) if any(hashes.values()) else (),
    )


def _check_sound(job: VideoJob) -> CheckedVideo:
    path, heard = first_path(job.video), job.heard
    sound = read_sound(path, rate=heard.rate, most_seconds=heard.most_seconds)
    sha256 = _hash_file(path)
    return CheckedVideo(
        info=sound.info,
        times=StoredTimes(len(sound.waveform), heard.rate, 0.0, sound.seconds, b""),
        sha256=sha256,
        content_hash=_content_hash(job.video, sha256),
        looks=(),
    )


def _check_track(job: VideoJob) -> None:
    if not isinstance(job.video, str):
        raise VideoError("no_sound_track", "frame images have no sound: set use_audio_in_video: false, or name videos")
    read_track(job.video, rate=job.heard.rate)


def _jobs(catalog: Catalog, images_fps: float, num_looks: int, heard: Heard) -> Iterator[VideoJob]:
    for batch in catalog.in_batches("SELECT id, kind, name FROM video WHERE reason IS NULL AND id > ?"):
        for number, kind, name in batch:
            yield VideoJob(number, kind, read_video(name), images_fps, num_looks, heard)


def _note(catalog: Catalog, job: VideoJob, found: CheckedVideo | VideoError) -> None:
    if isinstance(found, VideoError):
        catalog.ask("UPDATE video SET reason = ?, detail = ? WHERE id = ?", found.reason, found.detail, job.number)
        return
    info, times = found.info, found.times
    catalog.ask(
        "UPDATE video SET codec = ?, width = ?, height = ?, num_frames = ?, fps = ?, first = ?, last = ?, uneven = ?, "
        "num_bytes = ?, sha256 = ?, content_hash = ?, looks = ? WHERE id = ?",
        *(info.codec, info.width, info.height, *times, info.num_bytes, found.sha256),
        *(found.content_hash, np.array(found.looks, dtype=np.uint64).tobytes(), job.number),
    )


def _content_hash(video: Video, sha256: str) -> str:
    if not any(storage.is_s3(part) for part in _parts(video)):
        return f"sha256:{sha256}"
    tags = [storage.etag(part) if storage.is_s3(part) else _hash_file(part) for part in _parts(video)]
    return f"etag:{_joined(tags)}"


def _hash_file(path: str) -> str:
    with storage.borrowed(path) as local, local.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _joined(identities: Sequence[str]) -> str:
    """One identity as it is; several, of frame images in order, as the hash of all."""
    return identities[0] if len(identities) == 1 else hashlib.sha256("\n".join(identities).encode()).hexdigest()


def _parts(video: Video) -> Sequence[str]:
    return (video,) if isinstance(video, str) else video
