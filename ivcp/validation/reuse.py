"""What an earlier validation left in a folder: used again while nothing changed that it depends on."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from ivcp import storage
from ivcp.data.problems import AnnotationError
from ivcp.packages import own_version
from ivcp.records import ANNOTATIONS_FILE, LABELS_FILE, QUARANTINE_FILE, REPORT_HTML, REPORT_JSON
from ivcp.records.validation import ValidationReport
from ivcp.settings import SECTION_OF_KEY, RunConfig
from ivcp.stages.registry import stage_of
from ivcp.storage.atomic import write_whole
from ivcp.validation.data_fingerprint import data_fingerprint

log = logging.getLogger(__name__)

VALIDATION_VERSION = 1
"""Raised when the same inputs give other annotations or another report than before."""
FINGERPRINT_FILE = "fingerprint.txt"
"""Written last, beside a report of data that can be used: what it depends on, as a hash."""
_OTHER_FILES = (ANNOTATIONS_FILE, QUARANTINE_FILE, REPORT_HTML)
_SECTIONS = ("data", "video")
_MODEL_KEYS = ("model_name_or_path", "model_revision", "trust_remote_code")
DATA_KEYS = ("stage", "seed", "split_seed", "folds", "test_num_clips")
"""Settings of other sections that validation or preparation read, whatever the stage."""
_PLACES = ("dataset_dir", "media_dir")
_KEYS_WITHOUT_EFFECT = frozenset(
    {
        "prepared_frames",
        "prepared_jpeg_quality",
        "prepared_verify_checksums",
        "preprocessing_num_workers",
        "preprocessing_parts",
        "video_backend",
    }
)
"""Settings of these sections that only preparation reads, or that say how the work is done. All others count."""
_CHANCE = frozenset({"timeout", "out_of_memory", "crashed"})
"""Reasons that lie in the machine as well as in the video: another time it may be usable."""


def find_validated(config: RunConfig, folder: Path) -> ValidationReport | None:
    """The report in `folder`, where it is of the same data and settings; null where they must be validated.

    Says in one line that it is used again. Data that cannot be read are validation's business: it names what is wrong.
    """
    kept = folder / FINGERPRINT_FILE
    if not kept.is_file() or kept.read_text(encoding="utf-8") != inputs_fingerprint(config):
        return None
    if not all((folder / name).is_file() for name in _OTHER_FILES):
        return None
    try:
        report = ValidationReport.read(folder / REPORT_JSON)
    except (FileNotFoundError, ValueError):
        return None
    if report.labels is not None and not (folder / LABELS_FILE).is_file():
        return None
    log.info("validated before and unchanged, no video is read again: %s", folder)
    return report


def inputs_fingerprint(config: RunConfig) -> str | None:
    """Hash of all that validation reads: its settings, annotations, videos by size and time of change or ETag, and the
    base model; null where that cannot be listed."""
    keys = {*_MODEL_KEYS, *DATA_KEYS, *stage_of(config).data_settings}
    settings: dict[str, Any] = {
        key: value
        for key, value in config.with_data_seed().flat().items()
        if (SECTION_OF_KEY[key] in _SECTIONS or key in keys) and key not in _KEYS_WITHOUT_EFFECT
    }
    settings |= {key: _absolute(settings[key]) for key in _PLACES if settings[key]}
    try:
        settings["data"] = data_fingerprint(config)
    except (AnnotationError, OSError):
        return None
    described = [VALIDATION_VERSION, own_version(), settings]
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def forget_validated(folder: Path) -> None:
    """Called before `folder` is written: what is there counts no more."""
    (folder / FINGERPRINT_FILE).unlink(missing_ok=True)


def keep_validated(report: ValidationReport, folder: Path, *, fingerprint: str | None, config: RunConfig) -> None:
    """Marks the report in `folder` as one to be used again, unless another validation might come to another result.

    `fingerprint` is that of the data before they were looked at.
    """
    by_chance = _CHANCE & report.quarantine_reasons.keys()
    lacks_tokens = report.tokens is None and config.model.model_name_or_path is not None
    if fingerprint is not None and not by_chance and not lacks_tokens:
        write_whole(folder / FINGERPRINT_FILE, fingerprint)


def _absolute(place: str) -> str:
    return place if storage.is_s3(place) else str(Path(place).resolve())
