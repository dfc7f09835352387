"""What a worker process of the preparation step does: the rows of one video → prepared clips.

The module itself is light: worker processes share one import of torch and transformers, the step's own process does
without.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from ivcp.data.prepared.encoding import encode_sample
from ivcp.data.prepared.sample import Medium, Sample
from ivcp.models import processor_settings
from ivcp.models.processor_settings import ProcessorSettings, load_processor, use_one_thread
from ivcp.records import Clip, first_path
from ivcp.video import ClipFrames, Span, VideoError, frame_times, load_clips, probe

if TYPE_CHECKING:
    from ivcp.models.processor import Processor
    from ivcp.stages.protocol import Stage

PRELOAD = (processor_settings.PRELOAD, __name__)


@dataclass(frozen=True)
class Job:
    """Clips of one video to prepare."""

    clips: tuple[Clip, ...]
    """At least one; all have the same `video`."""
    settings: ProcessorSettings
    stage: Stage
    jpeg_quality: int | None
    """Of stored frames; null keeps their pixels."""


@dataclass(frozen=True)
class Prepared:
    """One clip as `ivcp.data.prepared.shards` writes it."""

    encoded: pa.RecordBatch


_failed_start: Exception | None = None
"""Why this worker process has no processor."""


def start_worker(settings: ProcessorSettings) -> None:
    """Called in each new worker process: what every clip needs does not count as the first one's time.

    An error reaches the step by the first clip, which does not try again: that might take longer than a clip may, and
    would be called the video's fault.
    """
    global _failed_start
    use_one_thread()
    try:
        load_processor(settings)
    except (OSError, ValueError) as error:
        _failed_start = error


def prepare_clips_of_video(job: Job) -> tuple[Prepared | VideoError, ...]:
    """Decodes, resizes and tokenises the clips of one video, in the order of `job.clips`.

    The file is opened and decoded once for all of them. A clip that cannot be used is a `VideoError` in its place.

    Raises:
        OSError, ValueError: there is no such base model, or its tokenizer splits a special token.
    """
    if _failed_start is not None:
        raise _failed_start
    processor = load_processor(job.settings)
    spans = [Span(clip.start_seconds, clip.end_seconds, clip.split == "train") for clip in job.clips]
    try:
        loaded = load_clips(job.clips[0].video, spans, processor=processor)
    except VideoError as error:
        return (error,) * len(job.clips)
    return tuple(
        frames if isinstance(frames, VideoError) else _prepare(clip, frames, processor, job)
        for clip, frames in zip(job.clips, loaded, strict=True)
    )


def _prepare(clip: Clip, loaded: ClipFrames, processor: Processor, job: Job) -> Prepared | VideoError:
    if loaded.video_frames not in (None, clip.num_frames) and _counted(clip) != clip.num_frames:
        return VideoError("wrong_count", f"{loaded.video_frames} frames, but {clip.num_frames} when it was validated")
    medium = Medium(
        frames=loaded.candidates,
        seconds_per_frame=loaded.seconds_per_frame,
        frame_indices=loaded.frame_indices,
        source_fps=loaded.source_fps,
        total_frames=loaded.total_frames,
        frame_candidates=len(loaded.candidates) // len(loaded.frames),
        backend=loaded.backend,
    )
    tokens, values = job.stage.tokenize_clip(processor, clip, [loaded])
    sample = Sample(
        **vars(tokens),
        sample_id=clip.clip_id,
        source=first_path(clip.video),
        media=(medium,),
        columns={**job.stage.values(clip), **values},
    )
    return Prepared(encode_sample(sample, job.stage.columns, jpeg_quality=job.jpeg_quality))


def _counted(clip: Clip) -> int | None:
    """Frames by decoding all, which is how validation counts: a decoder may leave out what the packets hold."""
    try:
        return len(frame_times(clip.video, probe(clip.video)).seconds)
    except VideoError:
        return None
