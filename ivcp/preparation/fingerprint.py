"""What prepared clips depend on, as hashes: of all settings, of a whole run, and of each clip."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ivcp import storage
from ivcp.data.prepared.table import KEY_BYTES
from ivcp.models.processor_settings import ProcessorSettings
from ivcp.records import Clip
from ivcp.settings import VideoConfig

PREPARATION_VERSION = 6
"""Raised when the same inputs give other frames or tokens than before."""
_LATER_SETTINGS = ("image_", "use_audio_in_video", "audio_")
_PROCESSOR_FILES = ("*.json", "*.jinja", "*.txt", "*.model")


def fingerprint_settings(
    settings: ProcessorSettings, jpeg_quality: int | None, *, stage: str, token_settings: Mapping[str, Any]
) -> str:
    """Hash of the stage, of the video settings, of how frames are stored, and of the processor.

    The processor is the files of a local model, or the revision of a hub one. `token_settings` are those of the stage
    that its tokens depend on.
    """
    described = asdict(settings) | {
        "jpeg_quality": jpeg_quality,
        "stage": stage,
        "video": _described_video(settings.video),
        "version": PREPARATION_VERSION,
        "processor": _hash_processor(Path(settings.model_name_or_path)),
    }
    if token_settings:
        described["token_settings"] = dict(token_settings)
    for place in ("model_name_or_path", "cache_dir") if described["processor"] else ("cache_dir",):
        del described[place]  # where a model lies changes nothing
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def fingerprint_run(settings_fingerprint: str, data_fingerprint: str, *, num_views: int = 1) -> str:
    """Hash of everything that the prepared clips of a run depend on; `num_views` are those in time of test clips."""
    views = f" {num_views} views" if num_views > 1 else ""
    return hashlib.sha256(f"{settings_fingerprint} {data_fingerprint}{views}".encode()).hexdigest()


def clip_key(clip: Clip, *, candidates: int, data_fingerprint: str) -> bytes:
    """What the frames and tokens of a clip depend on besides the settings, (KEY_BYTES,): its videos, span and text.

    Neither the row's number nor its label, nor where a hashed video lies: such rows are copied, not decoded again.
    """
    described: tuple[object, ...] = (
        clip.content_hash or _identity(clip.video or (), data_fingerprint),
        clip.num_frames,
        clip.start_seconds,
        clip.end_seconds,
        [(message.role, message.content) for message in clip.messages],
        candidates,
    )
    if clip.rejected is not None or clip.more_videos:
        more = [(v.content_hash or _identity(v.video, data_fingerprint), v.num_frames) for v in clip.more_videos]
        described = (*described, clip.rejected, more)
    return _short_hash(described)


def record_key(clip: Clip, key: bytes, values: Mapping[str, Any]) -> bytes:
    """What the clip's record in a shard depends on, (KEY_BYTES,): `values` are those that the stage asks for."""
    return _short_hash((key.hex(), clip.clip_id, clip.source, sorted(values.items())))


def _identity(video: str | tuple[str, ...], data_fingerprint: str) -> list[object]:
    """What stands for the bytes of videos that validation did not hash: path, size and time of change.

    On S3 that would be a request for each clip: there, the whole data set's fingerprint, which covers the content.
    """
    found: list[object] = []
    for path in (video,) if isinstance(video, str) else video:
        if storage.is_s3(path):
            found.append((path, data_fingerprint))
            continue
        try:
            status = storage.local_path(path).stat()
        except FileNotFoundError:
            found.append((path, "missing"))
        else:
            found.append((path, status.st_size, status.st_mtime_ns))
    return found


def _short_hash(described: object) -> bytes:
    return hashlib.sha256(json.dumps(described).encode()).digest()[:KEY_BYTES]


def _described_video(video: VideoConfig) -> dict[str, Any]:
    """The settings of images and sounds only where they are not the usual ones: what was prepared before there were
    any stays."""
    usual = VideoConfig()
    return {
        key: value
        for key, value in video.model_dump().items()
        if not key.startswith(_LATER_SETTINGS) or value != getattr(usual, key)
    }


def _hash_processor(folder: Path) -> dict[str, str]:
    """Checksums of the small files of a local model directory; empty for a hub id."""
    files = sorted({path for pattern in _PROCESSOR_FILES for path in folder.glob(pattern) if path.is_file()})
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
