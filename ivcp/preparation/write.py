"""Writes planned shards: clips that were prepared before are copied, the others decoded in worker processes."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ivcp.data.prepared.encoding import count_tokens, shard_schema, with_row
from ivcp.data.prepared.shards import ShardFile
from ivcp.models.path import check_model_source
from ivcp.models.processor_settings import ProcessorSettings
from ivcp.preparation.clip_worker import (
    PRELOAD,
    Job,
    Prepared,
    prepare_clips_of_video,
    start_worker,
)
from ivcp.preparation.known_clips import KnownClips, find_known
from ivcp.preparation.plan import Plan, PlannedShard, name_shard
from ivcp.preparation.publish import FailedClip, Receipt, ShardFolder
from ivcp.records import Clip, QuarantinedClip, Split
from ivcp.settings import DataConfig
from ivcp.stages.protocol import Stage
from ivcp.tracking.progress import with_progress
from ivcp.video import VideoError
from ivcp.video.workers import run_in_workers

log = logging.getLogger(__name__)
SHARD = ".arrow"
_MOST_CLIPS_PER_JOB = 64
"""Clips of the same videos that a worker prepares at once: their frames are in memory together."""


@dataclass(frozen=True)
class Written:
    """The outcome of writing shards."""

    num_kept: int
    """Clips whose shard was there already."""
    num_copied: int
    num_decoded: int
    num_failed: int

    def __str__(self) -> str:
        return (
            f"{self.num_decoded} clips decoded, {self.num_copied} copied, {self.num_kept} were there, "
            f"{self.num_failed} failed"
        )


def write_shards(
    plan: Plan,
    shards: Sequence[PlannedShard],
    folder: ShardFolder,
    *,
    stage: Stage,
    settings: ProcessorSettings,
    data: DataConfig,
    candidates: Mapping[Split, int],
    check_failed: Callable[[Sequence[QuarantinedClip]], None],
) -> Written:
    """Writes those of `shards` that are not there yet, each with its receipt as soon as it is complete.

    `candidates` are the frames that are stored around each sampled moment, by split. `check_failed` is called whenever
    a clip cannot be prepared, with all of them so far, and may stop the work.

    Raises:
        HubError: the hub does not give the base model.
        OSError, ValueError: there is no such base model, or the folder cannot be written.
    """
    sizes = folder.sizes()
    todo = [s for s in shards if not folder.finished(s, sizes, verify_checksum=data.prepared_verify_checksums)]
    num_clips, num_copied = sum(map(len, todo)), 0
    failed: list[QuarantinedClip] = []
    if todo:
        check_model_source(settings.model_name_or_path, revision=settings.revision, cache_dir=settings.cache_dir)
        known = find_known(folder, sizes, plan, todo)
        jobs = _jobs(plan, todo, known, settings, stage, data.jpeg_quality, candidates)
        decoded = _decode(jobs, settings, data)
        outcomes = with_progress(_outcomes(plan, todo, known, decoded, stage), total=num_clips, what="clips prepared")
        with closing(decoded), closing(outcomes):
            for planned in todo:
                some = itertools.islice(outcomes, len(planned))
                receipt, copied = _write_shard(planned, plan, _noting(some, failed, check_failed), folder, stage)
                folder.write_receipt(planned, receipt)
                num_copied += copied
            next(outcomes, None)  # lets the progress say that all is done
    return Written(
        num_kept=sum(map(len, shards)) - num_clips,
        num_copied=num_copied,
        num_decoded=num_clips - num_copied - len(failed),
        num_failed=len(failed),
    )


_Outcome = tuple[Clip, pa.RecordBatch | VideoError, bool]
"""A clip, its record, and whether that was copied."""


def _outcomes(
    plan: Plan,
    shards: Iterable[PlannedShard],
    known: KnownClips,
    decoded: Iterator[Prepared | VideoError],
    stage: Stage,
) -> Generator[_Outcome, None, None]:
    schema = shard_schema(stage.columns)
    for clip, key in _clips(plan, shards):
        record = known.get(key)
        if record is not None:
            row = with_row(
                record, sample_id=clip.clip_id, source=clip.source, columns=stage.values(clip), schema=schema
            )
            yield clip, row, True
            continue
        result = next(decoded)
        yield clip, result if isinstance(result, VideoError) else result.encoded, False


def _noting(
    outcomes: Iterable[_Outcome],
    failed: list[QuarantinedClip],
    check_failed: Callable[[Sequence[QuarantinedClip]], None],
) -> Iterator[_Outcome]:
    """The same outcomes; each failure is noted and checked at once: a shard of clips that time out takes hours."""
    for outcome in outcomes:
        clip, result, _ = outcome
        if isinstance(result, VideoError):
            failed.append(_quarantine(clip, result))
            check_failed(failed)
        yield outcome


def _jobs(
    plan: Plan,
    shards: Iterable[PlannedShard],
    known: KnownClips,
    settings: ProcessorSettings,
    stage: Stage,
    jpeg_quality: int | None,
    candidates: Mapping[Split, int],
) -> Iterator[Job]:
    unknown = (clip for clip, key in _clips(plan, shards) if key not in known)
    for videos, of_videos in itertools.groupby(
        unknown, key=lambda clip: [(video.kind, video.video) for video in clip.media]
    ):
        most = max(1, _MOST_CLIPS_PER_JOB // max(1, len(videos)))
        while clips := tuple(itertools.islice(of_videos, most)):
            yield Job(clips, settings, stage, jpeg_quality, candidates)


def _clips(plan: Plan, shards: Iterable[PlannedShard]) -> Iterator[tuple[Clip, bytes]]:
    for planned in shards:
        yield from zip(plan.read(planned.rows), plan.keys[planned.rows].tolist(), strict=True)


def _decode(
    jobs: Iterator[Job], settings: ProcessorSettings, data: DataConfig
) -> Generator[Prepared | VideoError, None, None]:
    """What became of each clip of the jobs, in order."""
    results = run_in_workers(
        prepare_clips_of_video,
        jobs,
        timeout_seconds=data.video_timeout_seconds,
        num_workers=data.preprocessing_num_workers,
        preload=PRELOAD,
        initializer=start_worker,
        initargs=(settings,),
        size=lambda job: len(job.clips) * max(1, len(job.clips[0].media)),
        memory_gigabytes=data.video_memory_gigabytes,
    )
    for job, result in results:
        yield from [result] * len(job.clips) if isinstance(result, VideoError) else result


def _write_shard(
    planned: PlannedShard, plan: Plan, outcomes: Iterable[_Outcome], folder: ShardFolder, stage: Stage
) -> tuple[Receipt, int]:
    """Writes a shard; its receipt, and how many of its clips were copied."""
    failed: list[FailedClip] = []
    tokens: list[tuple[int, int]] = []
    num_copied = 0
    with folder.workspace() as workspace, ShardFile(workspace / f"{planned.name}{SHARD}", planned.split) as file:
        for position, (clip, result, is_copied) in enumerate(outcomes):
            if isinstance(result, VideoError):
                log.warning("%s cannot be used: %s", clip.clip_id, result)
                failed.append(FailedClip(position=position, quarantined=_quarantine(clip, result)))
                continue
            file.add(result)
            tokens.append(count_tokens(result, stage.columns))
            num_copied += is_copied
        if failed:
            written = np.delete(plan.records[planned.rows], [clip.position for clip in failed])
            file.rename(f"{name_shard(planned.split, written)}{SHARD}")
    receipt = Receipt(
        shard=file.info if file.offsets else None,
        offsets=tuple(file.offsets),
        num_tokens=tuple(of_all for of_all, _ in tokens),
        num_prompt_tokens=tuple(of_prompt for _, of_prompt in tokens),
        failed=tuple(failed),
    )
    return receipt, num_copied


def _quarantine(clip: Clip, error: VideoError) -> QuarantinedClip:
    return QuarantinedClip(
        clip_id=clip.clip_id,
        dataset=clip.dataset,
        row=clip.row,
        video=clip.source,
        split=clip.split,
        label=clip.label,
        labels=clip.labels,
        value=clip.value,
        group=clip.group,
        video_sha256=clip.video_sha256,
        reason=error.reason,
        detail=error.detail,
    )
