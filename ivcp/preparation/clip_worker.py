"""What a worker process of the preparation step does: the rows of one video, or of several → prepared clips.

The module itself is light: worker processes share one import of torch and transformers, the step's own process does
without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from ivcp.data.prepared.encoding import encode_sample
from ivcp.data.prepared.sample import Medium, Sample
from ivcp.models import processor_settings
from ivcp.models.processor_settings import ProcessorSettings, load_processor, use_one_thread
from ivcp.records import Clip, ClipMedium, Split, first_path
from ivcp.video import ClipFrames, Span, VideoError, frame_times, load_clips, load_image, load_sound, probe

if TYPE_CHECKING:
    from ivcp.models.processor import Processor
    from ivcp.stages.protocol import Stage

PRELOAD = (processor_settings.PRELOAD, __name__)


@dataclass(frozen=True)
class Job:
    """Clips of the same videos to prepare."""

    clips: tuple[Clip, ...]
    """At least one; all have the same videos in the same order, or none."""
    settings: ProcessorSettings
    stage: Stage
    jpeg_quality: int | None
    """Of stored frames; null keeps their pixels."""
    candidates: Mapping[Split, int]
    """Frames that are stored around each sampled moment, by split."""


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
    """Decodes, resizes and tokenises clips of the same videos, in the order of `job.clips`.

    Each file is opened and decoded once for all of them. A clip that cannot be used is a `VideoError` in its place.

    Raises:
        OSError, ValueError: there is no such base model, or its tokenizer splits a special token.
    """
    if _failed_start is not None:
        raise _failed_start
    processor = load_processor(job.settings)
    spans = [Span(clip.start_seconds, clip.end_seconds, job.candidates[clip.split]) for clip in job.clips]
    loaded = [_load(medium, spans, processor) for medium in job.clips[0].media]
    of_clips = zip(*loaded, strict=True) if loaded else [()] * len(job.clips)
    return tuple(_prepare(clip, found, processor, job) for clip, found in zip(job.clips, of_clips, strict=True))


def _load(video: ClipMedium, spans: Sequence[Span], processor: Processor) -> Sequence[ClipFrames | VideoError]:
    """What each span of a video gives; an image or a sound is the same to all."""
    if video.kind != "video":
        return [_load_whole(video, processor)] * len(spans)
    try:
        loaded: Sequence[ClipFrames | VideoError] = load_clips(video.video, spans, processor=processor)
    except VideoError as error:
        loaded = [error] * len(spans)
    return [found if isinstance(found, VideoError) else _recounted(video, found) for found in loaded]


def _load_whole(medium: ClipMedium, processor: Processor) -> ClipFrames | VideoError:
    path = first_path(medium.video)
    try:
        if medium.kind == "image":
            return load_image(path, processor=processor)
        loaded = load_sound(path, processor=processor)
    except VideoError as error:
        return error
    most = processor.longest_sound
    expected = medium.num_frames if most is None else min(medium.num_frames, round(most * processor.sound_rate))
    if loaded.total_frames == expected:
        return loaded
    counts = f"{loaded.total_frames} samples, but {medium.num_frames} when it was validated"
    return VideoError("wrong_count", counts)


def _recounted(video: ClipMedium, loaded: ClipFrames) -> ClipFrames | VideoError:
    if loaded.video_frames in (None, video.num_frames) or _counted(video) == video.num_frames:
        return loaded
    return VideoError("wrong_count", f"{loaded.video_frames} frames, but {video.num_frames} when it was validated")


def _prepare(
    clip: Clip, videos: Sequence[ClipFrames | VideoError], processor: Processor, job: Job
) -> Prepared | VideoError:
    loaded: list[ClipFrames] = []
    for video in videos:
        if isinstance(video, VideoError):
            return video
        loaded.append(video)
    try:
        tokens, values = job.stage.tokenize_clip(processor, clip, loaded)
    except VideoError as error:  # what the model does not hear to the end
        return error
    sample = Sample(
        **vars(tokens),
        sample_id=clip.clip_id,
        source=clip.source,
        media=tuple(Medium.of(video, with_candidates=True) for video in loaded),
        columns={**job.stage.values(clip), **values},
    )
    return Prepared(encode_sample(sample, job.stage.columns, jpeg_quality=job.jpeg_quality))


def _counted(video: ClipMedium) -> int | None:
    """Frames by decoding all, which is how validation counts: a decoder may leave out what the packets hold."""
    try:
        return len(frame_times(video.video, probe(video.video)).seconds)
    except VideoError:
        return None
