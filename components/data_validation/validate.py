"""The validation step: every row and every video is looked at before anything expensive starts."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from components.annotations import AnnotatedRow
from components.artifacts import (
    ANNOTATIONS_FILE,
    LABELS_FILE,
    QUARANTINE_FILE,
    REPORT_HTML,
    REPORT_JSON,
    Clip,
    Labels,
    QuarantinedClip,
    first_path,
    writable_folder,
    write_lines,
)
from components.config import RunConfig, VideoConfig
from components.data_validation.labels import check_every_class_is_trained
from components.data_validation.page import write_page
from components.data_validation.read import Annotations, read_annotations
from components.data_validation.report import CheckedClip, build_report
from components.data_validation.videos import CheckedVideo, Video, check_videos
from components.model_path import check_model_path
from components.quarantine import check_invalid_fraction, count_reasons
from components.validation_report import ValidationReport
from components.video import VideoError, sample_indices

log = logging.getLogger(__name__)


def validate_data(config: RunConfig, output_dir: Path) -> ValidationReport:
    """Checks all rows and videos of a run and writes what the next steps read.

    Writes the annotations of usable clips with their splits, the labels, the quarantine list, and the report as
    JSON and HTML to `output_dir`. The report is there even when the data are refused.

    Raises:
        AnnotationError: rows cannot be used, or a class has no usable training row.
        UnusableVideosError: too many videos cannot be used.
        FileNotFoundError: the base model does not exist.
        OSError: `output_dir` cannot be written.
    """
    start = time.monotonic()
    writable_folder(output_dir)
    if config.model.model_name_or_path is not None:
        check_model_path(config.model.model_name_or_path)  # no step can do without it: say so before decoding starts
    annotations = read_annotations(config)
    videos = check_videos(
        [row.video for row in annotations.rows],
        timeout_seconds=config.data.video_timeout_seconds,
        num_workers=config.data.preprocessing_num_workers,
    )
    clips, quarantined = _sort_out(annotations, videos, config.video)
    report = build_report(
        clips,
        quarantined,
        labels=annotations.labels,
        max_invalid_fraction=config.data.max_invalid_fraction,
        fingerprint=_fingerprint(clips, quarantined, annotations.labels),
        seconds_taken=time.monotonic() - start,
    )
    _write(output_dir, [checked.clip for checked in clips], quarantined, report)
    _log_summary(report, quarantined, output_dir)
    check_invalid_fraction(
        quarantined,
        num_rows=report.num_rows,
        max_invalid_fraction=report.max_invalid_fraction,
        listed_in=str(output_dir / QUARANTINE_FILE),
    )
    check_every_class_is_trained(report.labels, [c.clip.label for c in clips if c.clip.split == "train"])
    return report


def _sort_out(
    annotations: Annotations, videos: Mapping[Video, CheckedVideo | VideoError], video_config: VideoConfig
) -> tuple[list[CheckedClip], list[QuarantinedClip]]:
    clips, quarantined = [], []
    for row in annotations.rows:
        try:
            clips.append(_check_clip(row, annotations, videos[row.video], video_config))
        except VideoError as error:
            quarantined.append(_quarantine(row, annotations, error))
    return clips, quarantined


def _check_clip(
    row: AnnotatedRow, annotations: Annotations, checked: CheckedVideo | VideoError, video_config: VideoConfig
) -> CheckedClip:
    if isinstance(checked, VideoError):
        raise checked
    sample_indices(
        checked.num_frames,
        checked.info.fps,
        video_config,
        start_seconds=row.start_seconds,
        end_seconds=row.end_seconds,
    )
    clip = Clip(
        clip_id=row.clip_id,
        dataset=row.dataset,
        row=row.row,
        video=row.video,
        messages=row.messages,
        label=annotations.label_of[row.clip_id],
        split=annotations.split_of[row.clip_id],
        group=row.group,
        start_seconds=row.start_seconds,
        end_seconds=row.end_seconds,
        num_frames=checked.num_frames,
        content_hash=checked.content_hash,
    )
    return CheckedClip(clip, checked)


def _quarantine(row: AnnotatedRow, annotations: Annotations, error: VideoError) -> QuarantinedClip:
    return QuarantinedClip(
        clip_id=row.clip_id,
        dataset=row.dataset,
        row=row.row,
        video=first_path(row.video),
        split=annotations.split_of[row.clip_id],
        label=annotations.label_of[row.clip_id],
        reason=error.reason,
        detail=error.detail,
    )


def _fingerprint(clips: Sequence[CheckedClip], quarantined: Sequence[QuarantinedClip], labels: Labels) -> str:
    digest = hashlib.sha256(labels.model_dump_json().encode())
    for checked in clips:
        digest.update(checked.clip.model_dump_json().encode())
        digest.update(checked.video.sha256.encode())
    for clip in quarantined:
        digest.update(clip.clip_id.encode())
    return digest.hexdigest()


def _write(
    output_dir: Path, clips: Sequence[Clip], quarantined: Sequence[QuarantinedClip], report: ValidationReport
) -> None:
    write_lines(output_dir / ANNOTATIONS_FILE, clips)
    write_lines(output_dir / QUARANTINE_FILE, quarantined)
    report.labels.write(output_dir / LABELS_FILE)
    report.write(output_dir / REPORT_JSON)
    write_page(report, quarantined, output_dir / REPORT_HTML)


def _log_summary(report: ValidationReport, quarantined: Sequence[QuarantinedClip], output_dir: Path) -> None:
    splits = ", ".join(f"{split} {number}" for split, number in report.num_clips.items())
    log.info("%d rows of %d videos: %s; report: %s", report.num_rows, report.num_videos, splits, output_dir)
    if quarantined:
        log.warning("%d rows in quarantine: %s", len(quarantined), count_reasons(quarantined))
    for leak in report.leaks:
        where = ", ".join(f"{number} in {split}" for split, number in leak.num_clips.items())
        log.warning("leak: the same %s in several splits: %s (%s)", leak.kind, leak.name, where)
