"""What prepared clips depend on, as one hash."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from components.preprocessing.clip_worker import ProcessorSettings

PREPARATION_VERSION = 4
"""Raised when the same inputs give other frames or tokens than before."""
_PROCESSOR_FILES = ("*.json", "*.jinja", "*.txt", "*.model")


def fingerprint_clips(settings: ProcessorSettings, data_fingerprint: str) -> str:
    """Hash of the data, the video settings and the processor: the files of a local model, the revision of a hub one."""
    described = asdict(settings) | {
        "video": settings.video.model_dump(),
        "data": data_fingerprint,
        "version": PREPARATION_VERSION,
        "processor": _hash_processor(Path(settings.model_name_or_path)),
    }
    for place in ("model_name_or_path", "cache_dir") if described["processor"] else ("cache_dir",):
        del described[place]  # where a model lies changes nothing
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def _hash_processor(folder: Path) -> dict[str, str]:
    """Checksums of the small files of a local model directory; empty for a hub id."""
    files = sorted({path for pattern in _PROCESSOR_FILES for path in folder.glob(pattern) if path.is_file()})
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
