"""Computes the features of a frozen vision tower once per clip, and keeps them on disk for later epochs and runs."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from ivcp.data.prepared.reader import PreparedSamples
from ivcp.feature_cache.encoder import UnlikeLiveError, VisionEncoder
from ivcp.feature_cache.entries import FeatureCache, fingerprint
from ivcp.feature_cache.samples import EncodedSamples
from ivcp.feature_cache.store import CacheEntry, StoreError
from ivcp.inference.compute import Compute
from ivcp.models.backbone import BackboneModule, language_model_of
from ivcp.models.families import vision_tensors
from ivcp.models.processor import Processor
from ivcp.models.vision.features import InseparableFeaturesError, takes_features
from ivcp.records import PreparedIndex, Split
from ivcp.settings import ConfigError, RunConfig

log = logging.getLogger(__name__)

CLIPS_PER_PART = 64
"""Few enough that a part of a 7B model's features fits into memory while it is written."""


@dataclass(frozen=True)
class VisionCache:
    """What a run's vision features depend on and where they are kept."""

    config: RunConfig
    index: PreparedIndex
    module: BackboneModule
    processor: Processor
    compute: Compute
    changes_media: str | None
    """Why training sees other media than the prepared ones, besides augmentation; null where it does not."""
    sees_samples_once: bool
    """Whether training reads each sample once, so that nothing need be kept of it."""

    def replace(self, clips: Mapping[Split, Any]) -> dict[Split, Any]:
        """`clips` of training and validation with kept features in place of frames, wherever that changes no result.

        Computes the features that are missing. One log line for each split says what is done and why.

        Raises:
            ConfigError: `cache_vision_features` is true and something speaks against it.
        """
        wanted = self.config.speed.cache_vision_features
        replaced = dict(clips)
        if wanted is False or (wanted is None and self.sees_samples_once):
            return replaced
        name: str | None = None
        for split in ("train", "val"):
            if split not in clips:
                continue
            reason = self.why_live(split, clips[split])
            if reason is None:
                name = name or self._entry_name()
                replaced[split] = self._complete_entry(split, clips[split], name) or clips[split]
            elif wanted:
                raise ConfigError(f"cache_vision_features = true: {reason}; set cache_vision_features: false")
            else:
                log.info("vision features of %s clips are computed in every epoch: %s", split, reason)
        return replaced

    def why_live(self, split: Split, clips: Any) -> str | None:
        """Why the features of a split cannot be kept; null where they can."""
        trained = [name for name, parameter in vision_tensors(self._model) if parameter.requires_grad]
        if trained:
            return f"the vision tower or the projector trains ({trained[0]} and {len(trained) - 1} more)"
        if split == "train" and self.config.augmentation.changes_frames:
            return "augmentation changes the frames of training clips in every epoch"
        if split == "train" and self.changes_media:
            return self.changes_media
        if self.processor.reads_text_only:
            return "the model reads texts only"
        if self.index.video.use_audio_in_video or any("audio" in kinds.split("+") for kinds in self.index.media):
            return "samples have sounds, which models hear anew in each pass"
        if not takes_features(self._model):
            return f"{type(self._model).__name__} takes no features that were computed before"
        if is_deepspeed_zero3_enabled():
            return "DeepSpeed ZeRO-3 shards the vision tower before it can be run alone"
        return None if isinstance(clips, PreparedSamples) else "the clips are not read from prepared shards"

    @property
    def _model(self) -> Any:
        return language_model_of(self.module.backbone)

    def _entry_name(self) -> str:
        described = fingerprint(
            self._model,
            vision_tensors(self._model),
            index=self.index,
            processor=self.processor,
            compute=self.compute,
        )
        return described[:16]

    def _complete_entry(self, split: Split, clips: PreparedSamples, name: str) -> EncodedSamples | None:
        """The split with kept features; null, with a warning, where they cannot be kept after all."""
        cache = FeatureCache.of(self.config, self.index)
        entry = CacheEntry(cache.folder / f"{name}-{split}", len(clips), clips_per_part=CLIPS_PER_PART)
        encoder = VisionEncoder(
            self.module, self.processor, self.compute, num_workers=self.config.train.dataloader_num_workers
        )
        started = time.monotonic()
        try:
            num_computed = cache.complete(entry, partial(encoder.encode, clips))
        except (InseparableFeaturesError, UnlikeLiveError, StoreError) as problem:
            if self.config.speed.cache_vision_features and not isinstance(problem, StoreError):
                raise ConfigError(f"cache_vision_features = true: {problem}; set it to false") from problem
            log.warning("vision features of %s clips are computed in every epoch instead of kept: %s", split, problem)
            return None
        log.info(
            "vision features of %d %s clips are kept in %s (%.3g GB), %d of them computed now in %.0f s",
            *(len(clips), split, entry.folder, entry.num_bytes / 1e9, num_computed, time.monotonic() - started),
        )
        return EncodedSamples(clips, entry)
