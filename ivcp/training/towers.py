"""Has all processes run the same towers, where the media of their batches are unlike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from ivcp.distributed.rank import world_size
from ivcp.distributed.sharding import sharding_of
from ivcp.feature_cache.samples import EncodedSamples
from ivcp.models.blank_media import BlankMedia
from ivcp.models.families import UnsupportedModelError, vision_tensors
from ivcp.models.processor import Processor
from ivcp.records import MediumKind, PreparedIndex, Split
from ivcp.settings import ConfigError, RunConfig


def run_towers_alike(
    config: RunConfig,
    index: PreparedIndex,
    model: Any,
    processor: Processor,
    *,
    live: Mapping[Split, Any],
    kept: Mapping[Split, Any],
) -> dict[Split, Any]:
    """Attaches `BlankMedia` to a transformers model that needs it; returns the samples to train on.

    These are the `kept` ones, whose features are there already; but the `live` ones throughout where a tower has to run
    for some of them.

    Raises:
        ConfigError: the model cannot run its towers alone.
    """
    if not _needs_all_towers(config, index, model):
        return dict(kept)
    if all(isinstance(samples, EncodedSamples) for samples in kept.values()):
        return dict(kept)
    there = {kind for kinds in index.media for kind in kinds.split("+")}
    kinds: set[MediumKind] = {kind for kind in get_args(MediumKind) if kind in there}
    if index.video.use_audio_in_video and "video" in kinds:
        kinds.add("audio")
    try:
        BlankMedia(model, processor, kinds).attach()
    except UnsupportedModelError as error:
        raise ConfigError(
            f"{config.train.deepspeed or 'fsdp'} in {world_size()} processes, and rows with different media "
            f"({', '.join(index.media)}): a process whose batch has none of a kind would leave the others waiting, and "
            f"{error}; train with DDP, or on rows that have the same kinds of media"
        ) from error
    return dict(live)


def _needs_all_towers(config: RunConfig, index: PreparedIndex, model: Any) -> bool:
    """Whether processes wait for each other's towers: DDP knows what a process did not use."""
    if len(index.media) <= 1 or world_size() == 1:
        return False
    sharding = sharding_of(config.train)
    if sharding in ("zero1", "zero2"):
        return any(parameter.requires_grad for _, parameter in vision_tensors(model))
    return sharding != "none"
