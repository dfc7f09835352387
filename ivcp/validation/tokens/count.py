"""How many tokens each clip will have: known before anything is prepared, and without decoding."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from ivcp.data.prompts import TAGS, VIDEO_TAG, PromptError
from ivcp.models.processor_settings import ProcessorSettings, use_one_thread
from ivcp.settings import RunConfig
from ivcp.stages.registry import stage_of
from ivcp.tracking.progress import with_progress
from ivcp.validation.catalog import Catalog
from ivcp.validation.frame_times import COLUMNS, StoredTimes
from ivcp.validation.tokens.worker import (
    PRELOAD,
    Said,
    Shape,
    Times,
    TokenCounts,
    TokenJob,
    count_tokens,
)
from ivcp.video import VideoError
from ivcp.video.workers import run_in_workers

_Read = Callable[[tuple[Any, ...]], Said | Shape | Times]
_AT_ONCE = 100
"""What a worker counts in one call."""
_TIMEOUT_SECONDS = 600.0
"""Of one call: 100 long clips of a large model take seconds."""
_UNUSUAL = (
    "text LIKE '%<image>%'",
    "text LIKE '%<audio>%'",
    """text LIKE '[["tools"%'""",
    """text LIKE '%["function", %'""",
)
"""Conversations that not every model reads."""
_NO_TIME = -1.0
"""Stands for no start or no end: SQL's null equals nothing."""
_USABLE = f"""
SELECT video.kind, clip_video.num_sampled, video.height, video.width, {COLUMNS},
       COALESCE(start, {_NO_TIME}) AS start, COALESCE(stop, {_NO_TIME}) AS stop
FROM clip JOIN clip_video ON clip_video.clip = clip.id JOIN video ON video.id = clip_video.video
WHERE clip.reason IS NULL
"""
_TIMES = "num_frames, fps, first, last, uneven, start, stop"
_NO_STAMPS = "SELECT num_tokens FROM times WHERE 0"
_STAMPS = f"""
SELECT times.num_tokens FROM times WHERE times.num_frames = video.num_frames AND times.fps = video.fps
    AND times.first = video.first AND times.last = video.last AND times.uneven = video.uneven
    AND video.kind = 'video' AND times.start = COALESCE(clip.start, {_NO_TIME})
    AND times.stop = COALESCE(clip.stop, {_NO_TIME})
"""


class TokenCountError(RuntimeError):
    """The worker process that counts tokens died or hung."""


def check_prompts(catalog: Catalog, config: RunConfig) -> float | None:
    """Checks that the model reads what stands in conversations besides text and videos, before anything is decoded.

    Returns the seconds of sound that it hears of one file; null is any.

    Raises:
        OSError, ValueError: there is no such base model; it reads no images, or not beside videos, or hears nothing;
            its chat template leaves out tools or calls; a video's sound is named beside it.
        TokenCountError: the check failed.
    """
    conversations = [
        Said(text, rejected)
        for condition in _UNUSUAL
        for text, rejected in catalog.ask(f"SELECT text, rejected FROM conversation WHERE {condition} LIMIT 1")
    ]
    if config.video.use_audio_in_video:
        _check_tracks_stand_alone(catalog)
    stage = stage_of(config)
    kinds = [kind for (kind,) in catalog.ask("SELECT DISTINCT kind FROM video ORDER BY kind")]
    if not conversations and not (config.video.use_audio_in_video and "video" in kinds):
        return None
    if config.video.use_audio_in_video or len(kinds) > 1:
        tags = "".join(TAGS[kind] for kind in kinds)
        both = [[each.role, each.content.replace(VIDEO_TAG, tags)] for each in stage.smallest_prompt]
        conversations.append(Said(json.dumps(both), "2" if stage.rows == "pairs" else None))
    settings = ProcessorSettings.of(config, special_tokens=stage.special_tokens)
    job = TokenJob(settings, stage, tuple(range(len(conversations))), tuple(conversations))
    longest_sound = None
    for _, found in _in_workers(iter([job]), num_workers=1):
        if isinstance(found, VideoError):
            raise TokenCountError(f"the tokens of {settings.model_name_or_path} could not be counted: {found}")
        longest_sound = found.longest_sound
    return longest_sound


def _check_tracks_stand_alone(catalog: Catalog) -> None:
    """Raises:
    PromptError: a row names the sound of a video beside it, as LLaMA-Factory's rows have to.
    """
    tags = f"{VIDEO_TAG}{TAGS['audio']}"
    if catalog.number("SELECT COUNT(*) FROM conversation WHERE instr(text, ?)", tags):
        raise PromptError(
            f"{tags} stands in a row, and use_audio_in_video is set: the sound of a video is its own track here, and "
            "would be heard twice: leave the <audio> and its file out, or set use_audio_in_video: false to hear it "
            "behind the video"
        )


def note_tokens(catalog: Catalog, config: RunConfig) -> None:
    """Notes the number of tokens of each usable clip, and the size of its frames.

    Raises:
        OSError, ValueError: there is no such base model, it reads no videos, or its tokenizer splits the action token.
        TokenCountError: counting failed.
    """
    catalog.ask(
        "INSERT INTO shape (kind, height, width, num_sampled) "
        f"SELECT DISTINCT kind, height, width, num_sampled FROM ({_USABLE})"
    )
    _count(catalog, config, "shape", "id, kind, height, width, num_sampled", lambda values: Shape(*values))
    has_stamps = _count(catalog, config, "conversation", "id, text, rejected", lambda values: Said(*values))
    if has_stamps:
        catalog.ask(f"INSERT INTO times ({_TIMES}) SELECT DISTINCT {_TIMES} FROM ({_USABLE}) WHERE kind = 'video'")
        _count(catalog, config, "times", f"id, {_TIMES}", _read_times)
    of_video = f"shape.num_tokens + COALESCE(({_STAMPS if has_stamps else _NO_STAMPS}), 0)"  # no stamps of an image
    catalog.ask(
        "UPDATE clip SET num_tokens = (SELECT num_tokens FROM conversation WHERE id = clip.conversation) + COALESCE(("
        f"SELECT SUM({of_video}) FROM clip_video JOIN video ON video.id = clip_video.video JOIN shape ON "
        "shape.kind = video.kind AND shape.height = video.height AND shape.width = video.width "
        "AND shape.num_sampled = clip_video.num_sampled "
        "WHERE clip_video.clip = clip.id), 0) WHERE reason IS NULL"
    )


def _count(
    catalog: Catalog,
    config: RunConfig,
    table: str,
    columns: str,
    read: _Read,
) -> bool:
    """Notes what each row of a table adds to the tokens; returns whether times add some."""
    stage, has_stamps = stage_of(config), False
    settings = ProcessorSettings.of(config, special_tokens=stage.special_tokens)

    def jobs() -> Iterator[TokenJob]:
        for batch in catalog.in_batches(f"SELECT {columns} FROM {table} WHERE id > ?"):
            for first in range(0, len(batch), _AT_ONCE):
                rows = batch[first : first + _AT_ONCE]
                numbers, values = tuple(row[0] for row in rows), tuple(read(row[1:]) for row in rows)
                yield TokenJob(settings, stage, numbers, values)

    total = catalog.number(f"SELECT COUNT(*) FROM {table}")
    counted = _in_workers(jobs(), num_workers=1 if total <= _AT_ONCE else config.data.preprocessing_num_workers)
    batches = -(-total // _AT_ONCE)
    for job, found in with_progress(counted, total=batches, what=f"tokens of {table}s counted, by the hundred"):
        if isinstance(found, VideoError):
            raise TokenCountError(f"the tokens of {settings.model_name_or_path} could not be counted: {found}")
        has_stamps = found.depends_on_times
        catalog.change(f"UPDATE {table} SET num_tokens = ? WHERE id = ?", zip(found.counts, job.numbers, strict=True))
        if found.sizes:
            sizes = [(*size, number) for size, number in zip(found.sizes, job.numbers, strict=True)]
            catalog.change("UPDATE shape SET frame_height = ?, frame_width = ? WHERE id = ?", sizes)
    return has_stamps


def _in_workers(
    jobs: Iterator[TokenJob], *, num_workers: int | None
) -> Iterator[tuple[TokenJob, TokenCounts | VideoError]]:
    return run_in_workers(
        count_tokens,
        jobs,
        timeout_seconds=_TIMEOUT_SECONDS,
        num_workers=num_workers,
        preload=PRELOAD,
        initializer=use_one_thread,
    )


def _read_times(values: tuple[Any, ...]) -> Times:
    *times, start, stop = values
    span = (None if time == _NO_TIME else time for time in (start, stop))
    return Times(StoredTimes._make(times), *span)
