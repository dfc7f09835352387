"""The preparation step: every clip is decoded, resized and tokenised once, and written to shards."""

from __future__ import annotations

import logging
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from components import storage
from components.artifacts import (
    ANNOTATIONS_FILE,
    INDEX_FILE,
    QUARANTINE_FILE,
    REPORT_JSON,
    SPLITS,
    Clip,
    Message,
    PreparedIndex,
    QuarantinedClip,
    read_lines,
    writable_folder,
)
from components.config import RunConfig
from components.preprocessing.clip_worker import PRELOAD, Job, ProcessorSettings, prepare_clip, start_worker
from components.preprocessing.fingerprint import fingerprint_clips
from components.progress import with_progress
from components.prompts import cut_behind_action
from components.quarantine import check_invalid_fraction
from components.shards import ShardError, ShardWriter, find_shard
from components.validation_report import ValidationReport
from components.video import VideoError
from components.video_workers import run_in_workers

log = logging.getLogger(__name__)
_MOST_NAMED = 20


class TooLongError(ValueError):
    """Rows that do not fit `cutoff_len`; the message names them and both numbers."""


@dataclass
class _Outcome:
    """What became of the clips while they were prepared."""

    num_tokens: dict[str, int] = field(default_factory=dict)
    """By clip id, of the clips that are in shards."""
    failed: list[QuarantinedClip] = field(default_factory=list)


def prepare_clips(config: RunConfig, *, validated_dir: Path, shards_uri: str, index_path: Path) -> PreparedIndex:
    """Prepares all validated clips, or finds them prepared already.

    Shards go to a folder of `shards_uri` (a local folder or s3:// prefix) that is named by the fingerprint of all
    they depend on; the index goes there, last, and to `index_path`.

    Raises:
        TooLongError: rows are longer than `cutoff_len`.
        UnusableVideosError: too many videos cannot be used.
        FileNotFoundError: the validation step's files or the base model are missing.
        OSError: a folder cannot be written.
    """
    writable_folder(index_path.parent)
    report = ValidationReport.read(validated_dir / REPORT_JSON)
    settings = _processor_settings(config)
    fingerprint = fingerprint_clips(settings, report.fingerprint)
    root_uri = storage.join(_absolute(shards_uri), fingerprint[:16])
    index = _find_prepared(root_uri, fingerprint)
    if index is None or index.max_tokens > config.data.cutoff_len:
        with _published_folder(root_uri) as folder:
            index = _prepare(config, settings, report, validated_dir, folder, root_uri, fingerprint)
    index.write(index_path)
    return index


def _processor_settings(config: RunConfig) -> ProcessorSettings:
    model = config.model
    if model.model_name_or_path is None:
        raise ValueError("model_name_or_path is not set: give the path of a model directory or a hub id")
    return ProcessorSettings(
        model_name_or_path=model.model_name_or_path,
        revision=model.model_revision,
        cache_dir=model.cache_dir,
        trust_remote_code=model.trust_remote_code,
        action_token=config.method.action_token,
        video=config.video,
    )


def _find_prepared(root_uri: str, fingerprint: str) -> PreparedIndex | None:
    """The index of an earlier run with the same fingerprint, where its shards are intact."""
    uri = storage.join(root_uri, INDEX_FILE)
    if not storage.exists(uri):
        return None
    try:
        index = PreparedIndex.model_validate_json(storage.read_text(uri))
        if index.fingerprint != fingerprint:
            return None
        index = index.model_copy(update={"root_uri": root_uri})  # the folder may have been moved
        for shard in index.shards:
            find_shard(root_uri, shard, verify_checksum=True)
    except (ValueError, ShardError) as error:
        log.warning("clips in %s cannot be used and are prepared again: %s", root_uri, error)
        return None
    log.info("clips are prepared already: %s", root_uri)
    return index


def _prepare(
    config: RunConfig,
    settings: ProcessorSettings,
    report: ValidationReport,
    validated_dir: Path,
    folder: Path,
    root_uri: str,
    fingerprint: str,
) -> PreparedIndex:
    clips = read_lines(validated_dir / ANNOTATIONS_FILE, Clip)
    quarantined = read_lines(validated_dir / QUARANTINE_FILE, QuarantinedClip)
    with ShardWriter(folder) as writer:
        outcome = _write_clips(config, settings, clips, writer)
    _check_lengths(clips, outcome.num_tokens, config.data.cutoff_len)
    failed = (*quarantined, *outcome.failed)
    check_invalid_fraction(
        failed,
        num_rows=report.num_rows,
        max_invalid_fraction=config.data.max_invalid_fraction,
        listed_in=str(validated_dir / QUARANTINE_FILE),
    )
    prepared = [clip for clip in clips if clip.clip_id in outcome.num_tokens]
    index = PreparedIndex(
        fingerprint=fingerprint,
        root_uri=root_uri,
        shards=writer.shards,
        labels=report.labels,
        video=config.video,
        action_token=config.method.action_token,
        prompt=_most_frequent_prompt(prepared, config.method.action_token),
        num_clips={split: sum(clip.split == split for clip in prepared) for split in SPLITS},
        label_counts={
            split: tuple(
                sum(clip.split == split and clip.label == label for clip in prepared)
                for label in range(report.labels.num_classes)
            )
            for split in SPLITS
        },
        failed=failed,
        max_tokens=max(outcome.num_tokens.values(), default=0),
        mean_tokens=sum(outcome.num_tokens.values()) / max(len(outcome.num_tokens), 1),
        data_fingerprint=report.fingerprint,
    )
    index.write(folder / INDEX_FILE)
    return index


def _write_clips(
    config: RunConfig, settings: ProcessorSettings, clips: Sequence[Clip], writer: ShardWriter
) -> _Outcome:
    outcome = _Outcome()
    results = run_in_workers(
        prepare_clip,
        (Job(clip, settings) for clip in clips),
        timeout_seconds=config.data.video_timeout_seconds,
        num_workers=config.data.preprocessing_num_workers,
        preload=PRELOAD,
        initializer=start_worker,
        initargs=(settings,),
    )
    for job, result in with_progress(results, total=len(clips), what="clips prepared"):
        if isinstance(result, VideoError):
            outcome.failed.append(_quarantine(job.clip, result))
            log.warning("%s cannot be used: %s", job.clip.clip_id, result)
            continue
        outcome.num_tokens[job.clip.clip_id] = result.num_tokens
        if result.num_tokens <= config.data.cutoff_len:
            writer.add(job.clip.split, result.encoded)
    return outcome


def _check_lengths(clips: Sequence[Clip], num_tokens: dict[str, int], cutoff_len: int) -> None:
    too_long = [clip for clip in clips if num_tokens.get(clip.clip_id, 0) > cutoff_len]
    if not too_long:
        return
    named = "\n".join(
        f"  data set {clip.dataset} row {clip.row}: {num_tokens[clip.clip_id]} tokens"
        for clip in too_long[:_MOST_NAMED]
    )
    more = f"\n  and {len(too_long) - _MOST_NAMED} more" if len(too_long) > _MOST_NAMED else ""
    longest = max(num_tokens.values())
    raise TooLongError(
        f"{len(too_long)} of {len(clips)} rows are longer than cutoff_len = {cutoff_len} tokens, and nothing is ever cut:\n"
        f"{named}{more}\nSet cutoff_len: {longest}, or sample fewer or smaller frames (video_num_frames, video_maxlen, "
        "video_max_pixels)"
    )


def _most_frequent_prompt(clips: Sequence[Clip], action_token: str) -> tuple[Message, ...]:
    cut = (cut_behind_action(clip.messages, action_token=action_token) for clip in clips if clip.split == "train")
    return Counter(cut).most_common(1)[0][0]


def _quarantine(clip: Clip, error: VideoError) -> QuarantinedClip:
    return QuarantinedClip(
        clip_id=clip.clip_id,
        dataset=clip.dataset,
        row=clip.row,
        video=clip.video if isinstance(clip.video, str) else clip.video[0],
        split=clip.split,
        label=clip.label,
        reason=error.reason,
        detail=error.detail,
    )


@contextmanager
def _published_folder(root_uri: str) -> Iterator[Path]:
    """A local folder that becomes `root_uri` when its block ends well, and nothing otherwise."""
    remote = "://" in root_uri
    parent = Path.cwd() if remote else writable_folder(Path(root_uri).parent)
    folder = parent / f".{root_uri.rpartition('/')[2]}.{os.getpid()}.partial"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
        if remote:
            index = folder.with_suffix(".index")
            (folder / INDEX_FILE).replace(index)
            storage.upload(folder, root_uri)
            storage.upload(index, storage.join(root_uri, INDEX_FILE))  # last: it says that the rest is complete
            index.unlink()
        else:
            shutil.rmtree(root_uri, ignore_errors=True)
            folder.replace(root_uri)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _absolute(uri: str) -> str:
    return uri if "://" in uri else str(Path(uri).absolute())
