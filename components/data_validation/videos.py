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
    """Of the file content, or of the hashes of all frame images."""
    content_hash: str
    """What `Clip.content_hash` is: `sha256:…` of local files, `etag:…` of S3 objects."""


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
    num_frames = count_frames(video, info)
    sha256 = _joined([_hash_file(part) for part in _parts(video)])
    return CheckedVideo(info, num_frames, sha256, _content_hash(video, sha256))


def _content_hash(video: Video, sha256: str) -> str:
    if not any(storage.is_s3(part) for part in _parts(video)):
        return f"sha256:{sha256}"
    tags = [storage.etag(part) if storage.is_s3(part) else _hash_file(part) for part in _parts(video)]
    return f"etag:{_joined(tags)}"


def _hash_file(path: str) -> str:
    with storage.local_path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _joined(identities: Sequence[str]) -> str:
    """One identity as it is; several, of frame images in order, as the hash of all."""
    return identities[0] if len(identities) == 1 else hashlib.sha256("\n".join(identities).encode()).hexdigest()


def _parts(video: Video) -> Sequence[str]:
    return (video,) if isinstance(video, str) else video
