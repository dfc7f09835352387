"""Looks at every video of a run: opens it, counts its frames by decoding, hashes its content."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from components import storage
from components.progress import with_progress
from components.video import VideoError, VideoInfo, count_frames, probe
from components.video_workers import run_in_workers

Video = str | tuple[str, ...]


@dataclass(frozen=True)
class CheckedVideo:
    """A video that can be used."""

    info: VideoInfo
    num_frames: int
    """Counted by decoding."""
    sha256: str
    """Of the file content, or of all frame images."""


def check_videos(
    videos: Sequence[Video], *, timeout_seconds: float, num_workers: int | None
) -> dict[Video, CheckedVideo | VideoError]:
    """Checks each video once, in worker processes; what cannot be used comes back as its `VideoError`."""
    distinct = list(dict.fromkeys(videos))
    checked = run_in_workers(
        check_video,
        distinct,
        timeout_seconds=timeout_seconds,
        num_workers=num_workers,
        preload=(__name__,),
    )
    return dict(with_progress(checked, total=len(distinct), what="videos checked"))


def check_video(video: Video) -> CheckedVideo:
    """Opens one video, decodes all of it and hashes it.

    Raises:
        VideoError: it cannot be used.
    """
    info = probe(video)
    return CheckedVideo(info, count_frames(video, info), _hash(video))


def _hash(video: Video) -> str:
    digest = hashlib.sha256()
    for part in (video,) if isinstance(video, str) else video:
        with storage.local_path(part).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
