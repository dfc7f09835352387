"""Computes the features of a frozen vision tower once per clip, and keeps them on disk for later epochs and runs."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from components import storage
from components.action_model import ActionClassifier, language_model_of
from components.artifacts import PreparedIndex, Split
from components.clip_processor import ClipProcessor
from components.config import RunConfig
from components.config_files import ConfigError
from components.model_families import part_of
from components.prepared_clips import PreparedClips
from components.training.cached_clips import CachedClips
from components.training.feature_store import FeatureSet, StoreError, make_room, pack
from components.training.processes import Processes
from components.training.vision_encoder import UnlikeLiveError, VisionEncoder
from components.vision_features import InseparableFeaturesError, takes_features

log = logging.getLogger(__name__)

CLIPS_PER_PART = 64
"""Few enough that a part of a 7B model's features fits into memory while it is written."""
_VERSION = 1
"""Raised when the same inputs give other stored tensors than before."""
_FOLDER = "vision_features"


@dataclass(frozen=True)
class VisionCache:
    """What a run's vision features depend on and where they are kept."""

    config: RunConfig
    index: PreparedIndex
    classifier: ActionClassifier
    processor: ClipProcessor
    processes: Processes

    def replace(self, clips: Mapping[Split, Any]) -> dict[Split, Any]:
        """`clips` of training and validation with kept features in place of frames, wherever that changes no result.

        Computes the features that are missing. One log line for each split says what is done and why.

        Raises:
            ConfigError: `cache_vision_features` is true and something speaks against it.
        """
        wanted = self.config.speed.cache_vision_features
        replaced = dict(clips)
        if wanted is False:
            return replaced
        fingerprint: str | None = None
        for split in ("train", "val"):
            if split not in clips:
                continue
            reason = self.why_live(split, clips[split])
            if reason is None:
                fingerprint = fingerprint or self.fingerprint()
                replaced[split] = self._complete_set(split, clips[split], fingerprint) or clips[split]
            elif wanted:
                raise ConfigError(f"cache_vision_features = true: {reason}; set cache_vision_features: false")
            else:
                log.info("vision features of %s clips are computed in every epoch: %s", split, reason)
        return replaced

    def why_live(self, split: Split, clips: Any) -> str | None:
        """Why the features of a split cannot be kept; null where they can."""
        trained = [name for name, parameter in self._vision_tensors() if parameter.requires_grad]
        if trained:
            return f"the vision tower or the projector trains ({trained[0]} and {len(trained) - 1} more)"
        if split == "train" and self.config.augmentation.changes_frames:
            return "augmentation changes the frames of training clips in every epoch"
        if split == "train" and self.config.loss.mixup_alpha > 0:
            return f"mixup_alpha = {self.config.loss.mixup_alpha} mixes the frames of training clips"
        if not takes_features(self._model):
            return f"{type(self._model).__name__} takes no features that were computed before"
        if is_deepspeed_zero3_enabled():
            return "DeepSpeed ZeRO-3 divides the vision tower among the processes before it can be run alone"
        return None if isinstance(clips, PreparedClips) else "the clips are not read from prepared shards"

    def fingerprint(self) -> str:
        """Hash of all that the features depend on: weights, model, prepared clips, precision, device, versions."""
        model = self._model
        ignored = {"_name_or_path", "transformers_version", "use_cache"}
        described = {
            "version": _VERSION,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "clips": self.index.fingerprint,
            "pixels": json.loads(self.processor.processor.video_processor.to_json_string()),
            "model": {key: value for key, value in model.config.to_dict().items() if key not in ignored},
            "attention": [config._attn_implementation for config in (model.config, *_sub_configs(model.config))],
            "device": self.processes.device.type,
            "autocast": str(self.processes.autocast_dtype),
        }
        digest = hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode())
        for name, tensor in sorted(self._vision_tensors(), key=lambda item: item[0]):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().flatten().contiguous().view(torch.uint8).cpu().numpy().data)
        return digest.hexdigest()

    @property
    def cache_dir(self) -> Path:
        """`vision_cache_dir`, else a folder beside the prepared clips, or in the download cache for clips on S3."""
        given, root = self.config.speed.vision_cache_dir, self.index.root_uri
        if given is not None:
            return Path(given)
        return (storage.default_cache_dir() if storage.is_s3(root) else Path(root).parent) / _FOLDER

    @property
    def _model(self) -> Any:
        return language_model_of(self.classifier.backbone)

    def _vision_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """All weights of the transformers model but those of the language model and its head."""
        for name, tensor in (*self._model.named_parameters(), *self._model.named_buffers()):
            if part_of(name, self._model) in ("vision_tower", "projector"):
                yield name, tensor

    def _complete_set(self, split: Split, clips: PreparedClips, fingerprint: str) -> CachedClips | None:
        """The split with kept features; null, with a warning, where they cannot be kept after all."""
        features = FeatureSet(self.cache_dir / f"{fingerprint[:16]}-{split}", len(clips), clips_per_part=CLIPS_PER_PART)
        encoder = VisionEncoder(
            self.classifier, self.processor, self.processes, num_workers=self.config.train.dataloader_num_workers
        )
        started, num_computed = time.monotonic(), 0
        for share in (self.processes.share, list[int]):  # the rest is missing where machines share no disk
            problem: Exception | None = None
            try:
                features.hold()
                num_computed += self._compute(features, clips, share(features.missing()), encoder)
            except (StoreError, InseparableFeaturesError, UnlikeLiveError) as error:
                problem = error
            if not self.processes.agree(problem is None):
                features.release()
                self._explain(split, problem)
                return None
        log.info(
            "vision features of %d %s clips are kept in %s (%.3g GB), %d of them computed now in %.0f s",
            *(len(clips), split, features.folder, features.num_bytes / 1e9, num_computed, time.monotonic() - started),
        )
        return CachedClips(clips, features)

    def _explain(self, split: Split, problem: Exception | None) -> None:
        reason = problem or "another process could not keep them"
        if self.config.speed.cache_vision_features and not isinstance(problem, StoreError | None):
            raise ConfigError(f"cache_vision_features = true: {reason}; set cache_vision_features: false")
        log.warning("vision features of %s clips are computed in every epoch instead of kept: %s", split, reason)

    def _compute(self, features: FeatureSet, clips: PreparedClips, parts: Sequence[int], encoder: VisionEncoder) -> int:
        """Computes and writes parts; the number of clips in them."""
        positions = [position for part in parts for position in features.clips_of(part)]
        if not parts:
            return 0
        encoded = encoder.encode(clips, positions)
        for number, part in enumerate(parts):
            tensors = [next(encoded) for _ in features.clips_of(part)]
            if number == 0:
                self._make_room(features, tensors, len(parts))
            features.write(part, tensors)
        return len(positions)

    def _make_room(self, features: FeatureSet, part: Sequence[Mapping[str, Tensor]], num_parts: int) -> None:
        """Makes room for parts that are as large as this one, of all processes."""
        num_bytes = sum(tensor.nbytes for tensor in pack(part).values()) * num_parts * self.processes.count
        limit = int(self.config.speed.vision_cache_max_gigabytes * 1e9)
        make_room(self.cache_dir, num_bytes, max_bytes=limit, keep=[features.folder])


def _sub_configs(config: Any) -> Iterator[Any]:
    found = (getattr(config, name) for name in sorted(config.sub_configs))
    return (sub_config for sub_config in found if sub_config is not None)
