"""The preparation step: every clip is decoded, resized and tokenised once, and written to shards."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
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
    ShardInfo,
    first_path,
    read_lines,
    writable_folder,
)
from components.config import RunConfig
from components.cutoff import TooLongError
from components.preprocessing.clip_worker import (
    PRELOAD,
    Job,
    Prepared,
    ProcessorSettings,
    prepare_clips_of_video,
    start_worker,
)
from components.preprocessing.fingerprint import fingerprint_clips
from components.preprocessing.publish import find_prepared, published_folder
from components.progress import with_progress
from components.prompts import cut_behind_action
from components.quarantine import check_invalid_fraction
from components.shards import ShardWriter
from components.validation_report import ValidationReport
from components.video import VideoError
from components.video_workers import run_in_workers

log = logging.getLogger(__name__)
_MOST_NAMED = 20


@dataclass(frozen=True)
class _Validated:
    """What the validation step wrote."""

    report: ValidationReport
    clips: list[Clip]
    quarantined: list[QuarantinedClip]

    @classmethod
    def read(cls, folder: Path) -> _Validated:
        report = ValidationReport.read(folder / REPORT_JSON)
        clips = read_lines(folder / ANNOTATIONS_FILE, Clip)
        return cls(report, clips, read_lines(folder / QUARANTINE_FILE, QuarantinedClip))


@dataclass
class _Outcome:
    """What became of the clips while they were prepared."""

    num_tokens: dict[str, int] = field(default_factory=dict)
    """Up to the action token, by clip id, of the clips whose video could be used."""
    num_answer_tokens: dict[str, int] = field(default_factory=dict)
    """Behind it."""
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
    validated, settings = _Validated.read(validated_dir), _processor_settings(config)
    fingerprint = fingerprint_clips(settings, validated.report.fingerprint)
    root_uri = storage.join(_absolute(shards_uri), fingerprint[:16])
    index = find_prepared(root_uri, fingerprint)
    if index is None or not _is_complete(index, validated, config):
        with published_folder(root_uri) as folder:
            with ShardWriter(folder) as writer:
                outcome = _write_clips(config, settings, validated.clips, writer)
            _check_lengths(validated.clips, _counted_tokens(outcome, config), config.data.cutoff_len)
            index = _describe(config, validated, outcome, writer.shards, fingerprint, root_uri)
            index.write(folder / INDEX_FILE)
    index.write(index_path)
    _log_summary(index)
    return index


def _is_complete(index: PreparedIndex, validated: _Validated, config: RunConfig) -> bool:
    """Whether clips that were prepared earlier can be used: none failed then that may not fail now."""
    longest = index.max_tokens_with_answer if config.method.action_cls_token_loss_weight else index.max_tokens
    return len(index.failed) == len(validated.quarantined) and longest <= config.data.cutoff_len


def _counted_tokens(outcome: _Outcome, config: RunConfig) -> dict[str, int]:
    """The tokens of each clip that the model will read: with the answer where its loss counts."""
    if not config.method.action_cls_token_loss_weight:
        return outcome.num_tokens
    return {clip_id: count + outcome.num_answer_tokens[clip_id] for clip_id, count in outcome.num_tokens.items()}


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


def _write_clips(
    config: RunConfig, settings: ProcessorSettings, clips: Sequence[Clip], writer: ShardWriter
) -> _Outcome:
    outcome = _Outcome()
    for clip, result in with_progress(_prepared(config, settings, clips), total=len(clips), what="clips prepared"):
        if isinstance(result, VideoError):
            outcome.failed.append(_quarantine(clip, result))
            log.warning("%s cannot be used: %s", clip.clip_id, result)
            continue
        outcome.num_tokens[clip.clip_id] = result.num_tokens
        outcome.num_answer_tokens[clip.clip_id] = result.num_answer_tokens
        if result.num_tokens <= config.data.cutoff_len:
            writer.add(clip.split, result.encoded)
    return outcome


def _prepared(
    config: RunConfig, settings: ProcessorSettings, clips: Sequence[Clip]
) -> Iterator[tuple[Clip, Prepared | VideoError]]:
    """Each clip with what became of it; clips of one video together, in the order of the videos' first clips."""
    of_video: dict[str | tuple[str, ...], list[Clip]] = {}
    for clip in clips:
        of_video.setdefault(clip.video, []).append(clip)
    results = run_in_workers(
        prepare_clips_of_video,
        (Job(tuple(together), settings) for together in of_video.values()),
        timeout_seconds=config.data.video_timeout_seconds,
        num_workers=config.data.preprocessing_num_workers,
        preload=PRELOAD,
        initializer=start_worker,
        initargs=(settings,),
        size=lambda job: len(job.clips),
        memory_gigabytes=config.data.video_memory_gigabytes,
    )
    for job, result in results:
        yield from zip(job.clips, [result] * len(job.clips) if isinstance(result, VideoError) else result, strict=True)


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
        f"{len(too_long)} of {len(clips)} rows are longer than cutoff_len = {cutoff_len} tokens; nothing is ever cut:\n"
        f"{named}{more}\nSet cutoff_len: {longest}, or sample fewer or smaller frames "
        "(video_num_frames, video_maxlen, video_max_pixels)"
    )


def _describe(
    config: RunConfig,
    validated: _Validated,
    outcome: _Outcome,
    shards: tuple[ShardInfo, ...],
    fingerprint: str,
    root_uri: str,
) -> PreparedIndex:
    """The index of what was written.

    Raises:
        UnusableVideosError: too many videos cannot be used.
    """
    failed = (*validated.quarantined, *outcome.failed)
    check_invalid_fraction(
        failed,
        num_rows=validated.report.num_rows,
        max_invalid_fraction=config.data.max_invalid_fraction,
        listed_in="the log of this step and the validation step's quarantine list",
    )
    clips = [clip for clip in validated.clips if clip.clip_id in outcome.num_tokens]
    counts = Counter((clip.split, clip.label) for clip in clips)
    labels = validated.report.labels
    return PreparedIndex(
        fingerprint=fingerprint,
        root_uri=root_uri,
        shards=shards,
        labels=labels,
        video=config.video,
        action_token=config.method.action_token,
        prompt=_most_frequent_prompt(clips, config.method.action_token),
        num_clips={split: sum(clip.split == split for clip in clips) for split in SPLITS},
        label_counts={split: tuple(counts[split, label] for label in range(labels.num_classes)) for split in SPLITS},
        failed=failed,
        max_tokens=max(outcome.num_tokens.values()),
        max_tokens_with_answer=max(
            count + outcome.num_answer_tokens[clip_id] for clip_id, count in outcome.num_tokens.items()
        ),
        num_answers=sum(count > 0 for count in outcome.num_answer_tokens.values()),
        mean_tokens=sum(outcome.num_tokens.values()) / len(outcome.num_tokens),
        data_fingerprint=validated.report.fingerprint,
    )


def _most_frequent_prompt(clips: Sequence[Clip], action_token: str) -> tuple[Message, ...]:
    cut = (cut_behind_action(clip.messages, action_token=action_token) for clip in clips if clip.split == "train")
    frequent = Counter(cut).most_common(1)
    if not frequent:
        raise ValueError("no training clip could be prepared: the log says what is wrong with each")
    return frequent[0][0]


def _log_summary(index: PreparedIndex) -> None:
    megabytes = sum(shard.num_bytes for shard in index.shards) / 1e6
    log.info(
        "%d clips in %d shards (%.0f MB), at most %d tokens, %.0f on average: %s",
        sum(index.num_clips.values()),
        len(index.shards),
        megabytes,
        index.max_tokens,
        index.mean_tokens,
        index.root_uri,
    )


def _quarantine(clip: Clip, error: VideoError) -> QuarantinedClip:
    return QuarantinedClip(
        clip_id=clip.clip_id,
        dataset=clip.dataset,
        row=clip.row,
        video=first_path(clip.video),
        split=clip.split,
        label=clip.label,
        reason=error.reason,
        detail=error.detail,
    )


def _absolute(uri: str) -> str:
    return uri if storage.is_s3(uri) else str(Path(uri).absolute())
