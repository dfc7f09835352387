"""Tokens of the run, and what its next steps will need."""

from __future__ import annotations

import math

from ivcp.models.source import weight_bytes
from ivcp.records import SPLITS
from ivcp.records.validation import Estimate, LongRow, TokenCounts
from ivcp.settings import RunConfig
from ivcp.stages.registry import stage_of
from ivcp.validation.catalog import Catalog
from ivcp.validation.report.distributions import distribution_of
from ivcp.video.decoders import CHUNK

_BYTES_PER_TOKEN = 16
"""Its id and its kind, 8 bytes each."""
_BYTES_PER_SAMPLE = 4
"""Of a sound."""
_COUNTED = (
    "clip JOIN clip_video ON clip_video.clip = clip.id JOIN video ON video.id = clip_video.video "
    "JOIN shape ON shape.kind = video.kind AND shape.height = video.height AND shape.width = video.width "
    "AND shape.num_sampled = clip_video.num_sampled WHERE clip.reason IS NULL"
)
_PIXELS = "clip_video.num_sampled * shape.frame_height * shape.frame_width"


def describe_tokens(catalog: Catalog, config: RunConfig) -> TokenCounts | None:
    """What `note_tokens` noted, summed up; None where no clip can be used."""
    usable = catalog.number("SELECT COUNT(*) FROM clip WHERE reason IS NULL")
    tokens = distribution_of(catalog, "SELECT num_tokens FROM clip WHERE reason IS NULL")
    frames = distribution_of(
        catalog,
        "SELECT num_sampled FROM clip_video JOIN clip ON clip.id = clip_video.clip JOIN video "
        "ON video.id = clip_video.video WHERE clip.reason IS NULL AND video.kind != 'audio'",
    )
    if tokens is None:
        return None
    limit = config.data.cutoff_len
    long = catalog.ask(
        "SELECT dataset, row, num_tokens FROM clip WHERE reason IS NULL AND num_tokens > ? "
        "ORDER BY num_tokens DESC, id LIMIT ?",
        *(limit, config.data.report_examples),
    )
    sizes = catalog.ask(
        f"SELECT frame_width || 'x' || frame_height, COUNT(*) FROM {_COUNTED} AND video.kind != 'audio' "
        "GROUP BY 1 ORDER BY 2 DESC, 1"
    )
    by_split = dict(catalog.ask("SELECT split, SUM(num_tokens) FROM clip WHERE reason IS NULL GROUP BY 1"))
    stored_of = config.stored_candidates
    cases = " ".join(f"WHEN '{split}' THEN {count}" for split, count in stored_of.items())
    stored = f"SELECT SUM({_PIXELS} * CASE split {cases} END) FROM {_COUNTED}"
    of_clips = f"SELECT SUM({_PIXELS}) AS pixels FROM {_COUNTED} GROUP BY clip.id"
    return TokenCounts(
        model=config.model.model_name_or_path or "",
        cutoff_len=limit,
        with_answers=stage_of(config).reads_answers,
        distribution=tokens,
        mean=sum(by_split.values()) / usable,
        total={split: by_split.get(split, 0) for split in SPLITS},
        num_too_long=catalog.number("SELECT COUNT(*) FROM clip WHERE reason IS NULL AND num_tokens > ?", limit),
        too_long=tuple(LongRow(clip_id=f"{dataset}:{row}", num_tokens=count) for dataset, row, count in long),
        frame_sizes=dict(sizes),
        frames=frames,
        num_pixels=catalog.number(stored),
        most_pixels=max(stored_of.values()) * catalog.number(f"SELECT MAX(pixels) FROM ({of_clips})"),
    )


def estimate_needs(catalog: Catalog, config: RunConfig, tokens: TokenCounts) -> Estimate:
    """Disk, memory and steps of preparation and training."""
    train = config.train
    num_clips = catalog.number("SELECT COUNT(*) FROM clip WHERE reason IS NULL AND split = 'train'")
    batch_size = train.per_device_train_batch_size * train.gradient_accumulation_steps
    forward_passes = math.ceil(num_clips / train.per_device_train_batch_size)
    steps_per_epoch = max(1, math.ceil(forward_passes / train.gradient_accumulation_steps))
    num_steps = train.max_steps if train.max_steps > 0 else math.ceil(steps_per_epoch * train.num_train_epochs)
    return Estimate(
        shard_bytes=3 * tokens.num_pixels
        + _BYTES_PER_SAMPLE * _num_samples(catalog, config)
        + _BYTES_PER_TOKEN * sum(tokens.total.values()),
        clip_bytes=3 * tokens.most_pixels,
        decoding_bytes=3 * CHUNK * catalog.number("SELECT MAX(width * height) FROM video WHERE reason IS NULL"),
        weight_bytes=weight_bytes(config.model),
        batch_size=batch_size,
        steps_per_epoch=steps_per_epoch,
        num_steps=num_steps,
        batch_tokens=_batch_tokens(catalog, train.per_device_train_batch_size),
    )


def _num_samples(catalog: Catalog, config: RunConfig) -> int:
    """Of all sounds, and of what is heard of videos."""
    seconds = "MIN(COALESCE(stop, last + 1 / fps), last + 1 / fps) - COALESCE(start, first)"
    of_videos = f"{seconds} * {config.video.audio_sampling_rate}" if config.video.use_audio_in_video else "0"
    return round(
        catalog.number(
            f"SELECT SUM(CASE video.kind WHEN 'audio' THEN video.num_frames WHEN 'video' THEN {of_videos} ELSE 0 END) "
            "FROM clip JOIN clip_video ON clip_video.clip = clip.id JOIN video ON video.id = clip_video.video "
            "WHERE clip.reason IS NULL"
        )
    )


def _batch_tokens(catalog: Catalog, batch_size: int) -> int:
    """The longest clip beside others of any length: all of a batch are padded to it."""
    longest = catalog.number("SELECT MAX(num_tokens) FROM clip WHERE reason IS NULL AND split = 'train'")
    return longest * batch_size
