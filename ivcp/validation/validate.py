"""The validation step: every row and every video is looked at before anything expensive starts."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path

from ivcp.data.cutoff import explain_too_long
from ivcp.models.hub import HubError
from ivcp.models.path import check_model_source
from ivcp.records import (
    ANNOTATIONS_FILE,
    LABELS_FILE,
    QUARANTINE_FILE,
    REPORT_HTML,
    REPORT_JSON,
    Clip,
    Labels,
    write_lines,
)
from ivcp.records.quarantine import check_invalid_counts, name_reasons
from ivcp.records.validation import ValidationReport
from ivcp.settings import RunConfig
from ivcp.stages.registry import stage_of
from ivcp.storage.atomic import writable_folder
from ivcp.validation.catalog import Catalog
from ivcp.validation.missing import explain_missing_folder, find_missing
from ivcp.validation.report.build import build_report
from ivcp.validation.report.page import write_page
from ivcp.validation.reuse import forget_validated, inputs_fingerprint, keep_validated
from ivcp.validation.rows.labels import check_every_class_is_trained
from ivcp.validation.rows.read import read_annotations
from ivcp.validation.rows.tags import check_both_tags
from ivcp.validation.spans import check_spans
from ivcp.validation.splits.assign import keep_same_content_together
from ivcp.validation.splits.kept import keep_splits
from ivcp.validation.thumbnails import choose_thumbnails, take_thumbnails
from ivcp.validation.tokens.count import check_prompts, note_tokens
from ivcp.validation.tokens.worker import PRELOAD
from ivcp.validation.verdict import check_findings
from ivcp.validation.videos import Heard, check_videos

log = logging.getLogger(__name__)
_MOST_THUMBNAILS = 400
_AS_MANY_CLASSES = 8
"""As so many are shown where there are none."""
_MOST_NAMED = 10


def validate_data(config: RunConfig, output_dir: Path) -> ValidationReport:
    """Checks all rows and videos of a run and writes what the next steps read.

    Writes the annotations of usable clips with their splits, the labels, the quarantine list, and the report as
    JSON and HTML to `output_dir`. The report is there even when the data are refused. Where they can be used, the next
    step finds it with `find_validated`.

    Raises:
        AnnotationError: rows cannot be used, a class or a tag has no usable training row, or leaks or duplicates
            were found that a setting makes an error.
        UnusableVideosError: too many videos cannot be used.
        TooLongError: rows have more tokens than `cutoff_len`.
        PromptError, UnsupportedModelError: the model does not read what is in some rows.
        FileNotFoundError: the base model does not exist.
        OSError: `output_dir` cannot be written.
    """
    start = time.monotonic()
    writable_folder(output_dir)
    forget_validated(output_dir)
    inputs = inputs_fingerprint(config)
    model_missing = _check_model(config)
    with Catalog() as catalog:
        labels = read_annotations(config, catalog)
        longest_sound = check_prompts(catalog, config) if model_missing is None else None
        find_missing(catalog)
        wrong_folder = explain_missing_folder(catalog, config.data)
        tokens_missing: str | None = "no video was looked at"
        if wrong_folder is None:
            _look_at_videos(catalog, config, longest_sound)
            tokens_missing = model_missing or _count_tokens(catalog, config)
        fingerprint = _write_rows(catalog, labels, output_dir)
        report = build_report(
            catalog,
            config,
            labels=labels,
            fingerprint=fingerprint,
            tokens_missing=tokens_missing,
            seconds_taken=time.monotonic() - start,
        )
        report.write(output_dir / REPORT_JSON)
        _take_thumbnails(catalog, config)
        write_page(report, catalog, output_dir / REPORT_HTML, per_class=_pictures_per_class(config))
        _log_summary(report, output_dir)
        if wrong_folder is not None:
            raise wrong_folder
        _refuse(report, catalog, config, output_dir)
        if not config.protocol.folds:
            keep_splits(catalog, config.data)
    keep_validated(report, output_dir, fingerprint=inputs, config=config)
    return report


def _look_at_videos(catalog: Catalog, config: RunConfig, longest_sound: float | None) -> None:
    data, video = config.data, config.video
    check_videos(
        catalog,
        images_fps=video.video_fps,
        num_looks=data.near_duplicate_frames,
        heard=Heard(video.audio_sampling_rate, video.use_audio_in_video, longest_sound),
        timeout_seconds=data.video_timeout_seconds,
        num_workers=data.preprocessing_num_workers,
        memory_gigabytes=data.video_memory_gigabytes,
        preload=PRELOAD if config.model.model_name_or_path else (),
    )
    catalog.note_contents()
    keep_same_content_together(catalog, config)
    check_spans(catalog, video)


def _take_thumbnails(catalog: Catalog, config: RunConfig) -> None:
    data = config.data
    if not data.report_thumbnails:
        return
    choose_thumbnails(catalog, per_class=_pictures_per_class(config), at_most=_MOST_THUMBNAILS)
    take_thumbnails(
        catalog,
        timeout_seconds=data.video_timeout_seconds,
        num_workers=data.preprocessing_num_workers,
        memory_gigabytes=data.video_memory_gigabytes,
    )


def _pictures_per_class(config: RunConfig) -> int:
    """Without classes all rows are of one, of which more is shown."""
    number = config.data.report_thumbnails
    return number if stage_of(config).rows == "labels" else number * _AS_MANY_CLASSES


def _check_model(config: RunConfig) -> str | None:
    """Says before decoding starts that there is no such model, which no step can do without; why tokens cannot be
    counted where the hub does not give it here: preparation may run where it does."""
    model = config.model
    if model.model_name_or_path is None:
        return "model_name_or_path is not set"
    try:
        check_model_source(model.model_name_or_path, revision=model.model_revision, cache_dir=model.cache_dir)
    except HubError as error:
        log.warning("tokens are not counted: %s", error)
        return str(error)
    return None


def _count_tokens(catalog: Catalog, config: RunConfig) -> str | None:
    """Counts where there are clips; returns why not."""
    if not catalog.number("SELECT COUNT(*) FROM clip WHERE reason IS NULL"):
        return "no clip can be used"
    note_tokens(catalog, config)
    return None


def _write_rows(catalog: Catalog, labels: Labels | None, output_dir: Path) -> str:
    """Writes annotations, quarantine list and labels, where there are some; returns a hash of all of them."""
    digest = hashlib.sha256(labels.model_dump_json().encode() if labels else b"")

    def hashed_clips() -> Iterator[Clip]:
        for row in catalog.usable():
            clip = row.clip()
            digest.update(clip.model_dump_json().encode())
            yield clip

    write_lines(output_dir / ANNOTATIONS_FILE, hashed_clips())
    write_lines(output_dir / QUARANTINE_FILE, catalog.quarantined())
    if labels is None:
        (output_dir / LABELS_FILE).unlink(missing_ok=True)
    else:
        labels.write(output_dir / LABELS_FILE)
    for clip in catalog.quarantined():
        digest.update(clip.clip_id.encode())
    return digest.hexdigest()


def _refuse(report: ValidationReport, catalog: Catalog, config: RunConfig, output_dir: Path) -> None:
    """Raises what is wrong with data that were looked at."""
    check_invalid_counts(
        report.quarantine_reasons,
        examples=list(catalog.quarantined(_MOST_NAMED)),
        num_rows=report.num_rows,
        max_invalid_fraction=report.max_invalid_fraction,
        listed_in=str(output_dir / QUARANTINE_FILE),
    )
    if report.labels is not None and report.labels.kind != "value":
        check_every_class_is_trained(
            report.labels,
            (label for label, count in enumerate(report.label_counts["train"]) if count),
            max_samples=config.data.max_samples,
            num_quarantined=report.num_quarantined,
        )
    if stage_of(config).rows == "tags":
        check_both_tags(catalog)
    check_findings(report, config.data, page=output_dir / REPORT_HTML)
    tokens = report.tokens
    if tokens and tokens.num_too_long:
        named = [(row.clip_id.rpartition(":"), row.num_tokens) for row in tokens.too_long]
        raise explain_too_long(
            [(dataset, int(row), count) for (dataset, _, row), count in named],
            num_too_long=tokens.num_too_long,
            num_rows=report.num_rows - report.num_quarantined,
            longest=int(tokens.distribution.maximum),
            cutoff_len=tokens.cutoff_len,
        )


def _log_summary(report: ValidationReport, output_dir: Path) -> None:
    splits = ", ".join(f"{split} {number}" for split, number in report.num_clips.items())
    log.info("%d rows of %s: %s; report: %s", report.num_rows, report.media_in_words, splits, output_dir)
    if report.num_quarantined:
        log.warning("%d rows in quarantine: %s", report.num_quarantined, name_reasons(report.quarantine_reasons))
