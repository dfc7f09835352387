"""What a worker process of the preparation step does: one row → one prepared clip.

The module itself is light: worker processes share one import of torch and transformers, the step's own process does
without.
"""

from __future__ import annotations

import functools
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from components.artifacts import Clip, first_path
from components.config import VideoConfig
from components.shards import encode_clip
from components.video import VideoError, load_clip

if TYPE_CHECKING:
    from components.clip_processor import ClipProcessor

PRELOAD = ("components.clip_processor", __name__)


@dataclass(frozen=True)
class ProcessorSettings:
    """Which processor prepares the clips."""

    model_name_or_path: str
    revision: str
    cache_dir: str | None
    trust_remote_code: bool
    action_token: str
    video: VideoConfig


@dataclass(frozen=True)
class Job:
    """One clip to prepare."""

    clip: Clip
    settings: ProcessorSettings


@dataclass(frozen=True)
class Prepared:
    """One clip as `components.shards` writes it."""

    num_tokens: int
    """Up to the action token."""
    num_answer_tokens: int
    """Behind it; 0 where there is no answer."""
    encoded: pa.RecordBatch


def start_worker(settings: ProcessorSettings) -> None:
    """Called in each new worker process: what every clip needs does not count as the first one's time."""
    import torch

    torch.set_num_threads(1)  # there are as many processes as cores
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with suppress(OSError, ValueError):  # the first clip raises it again, where it reaches the step
        _load_processor(settings)


def prepare_clip(job: Job) -> Prepared:
    """Decodes, resizes and tokenises one clip.

    Raises:
        VideoError: its video cannot be used, or is not the one that was validated.
        OSError, ValueError: there is no such base model, or its tokenizer splits the action token.
    """
    clip, processor = job.clip, _load_processor(job.settings)
    loaded = load_clip(
        clip.video,
        processor=processor,
        start_seconds=clip.start_seconds,
        end_seconds=clip.end_seconds,
        with_candidates=clip.split == "train",
    )
    if loaded.total_frames != clip.num_frames:
        raise VideoError("wrong_count", f"{loaded.total_frames} frames, but {clip.num_frames} when it was validated")
    input_ids, mm_token_type_ids = processor.tokenize(
        clip.messages,
        frames=loaded.frames,
        frame_indices=loaded.frame_indices,
        source_fps=loaded.source_fps,
        total_frames=loaded.total_frames,
    )
    answer_ids, answer_start = processor.tokenize_answer(clip.messages)
    encoded = encode_clip(
        clip_id=clip.clip_id,
        video=first_path(clip.video),
        label=clip.label,
        frames=loaded.candidates,
        input_ids=input_ids,
        mm_token_type_ids=mm_token_type_ids,
        seconds_per_frame=loaded.seconds_per_frame,
        frame_candidates=len(loaded.candidates) // len(loaded.frames),
        answer_ids=answer_ids,
        answer_start=answer_start,
    )
    return Prepared(len(input_ids), len(answer_ids), encoded)


@functools.cache
def _load_processor(settings: ProcessorSettings) -> ClipProcessor:
    from components.clip_processor import ClipProcessor

    return ClipProcessor.from_pretrained(
        settings.model_name_or_path,
        video=settings.video,
        action_token=settings.action_token,
        revision=settings.revision,
        cache_dir=settings.cache_dir,
        trust_remote_code=settings.trust_remote_code,
    )
