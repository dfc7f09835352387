"""What the reference model says of each sample, asked once before training and kept beside the prepared clips.

Steps then run the model that trains alone, and a reference that is a model of its own leaves the memory. An entry is
known by all that it depends on, the reference's weights among it: an interrupted run, or one with another learning
rate, finds it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ivcp.data.prepared.reader import PreparedSamples
from ivcp.data.prepared.sample import Sample
from ivcp.distributed.rank import world_size
from ivcp.distributed.sharding import sharding_of
from ivcp.feature_cache.encoder import passes_of
from ivcp.feature_cache.entries import FeatureCache, fingerprint
from ivcp.feature_cache.samples import EncodedSamples
from ivcp.feature_cache.store import CacheEntry, StoreError
from ivcp.inference.loop import run_batches
from ivcp.models.backbone import language_model_of
from ivcp.records import Split
from ivcp.settings import ConfigError
from ivcp.stages.language.answers import ComparingModule
from ivcp.stages.language.stage import OTHER_ANSWER, REFERENCE
from ivcp.stages.protocol import Stage, TrainingInputs

log = logging.getLogger(__name__)

_MOST_PARTS = 1024
_SAMPLES_PER_PART = 64
"""At least: processes divide the parts among themselves."""
_SORTED_AT_ONCE = 1024
"""Samples of which those of like length share a pass."""


class ReferredSamples(Dataset[Sample]):
    """Samples with what was kept of them as a column."""

    def __init__(self, samples: Any, entry: CacheEntry) -> None:
        self.samples, self.entry = samples, entry

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        sample: Sample = self.samples[index]
        return replace(sample, columns={**sample.columns, **self.entry[index % len(self)]})

    def token_lengths(self, *, prompts_only: bool) -> NDArray[np.int64]:
        """Tokens of each sample, (len(self),)."""
        lengths: NDArray[np.int64] = self.samples.token_lengths(prompts_only=prompts_only)
        return lengths

    def column(self, name: str) -> NDArray[Any]:
        """A number of each sample, (len(self),)."""
        numbers: NDArray[Any] = self.samples.column(name)
        return numbers


class MismatchedSamples(ReferredSamples):
    """Samples with the answer of another one as a column, the same in every epoch."""

    def __init__(self, samples: PreparedSamples | EncodedSamples) -> None:
        self.samples = samples
        self._answers = samples.samples if isinstance(samples, EncodedSamples) else samples.without_frames()

    def __getitem__(self, index: int) -> Sample:
        sample: Sample = self.samples[index]
        # Not the next one: samples of one video stand side by side.
        other = self._answers[(index + len(self) // 2) % len(self)]
        answer = other.input_ids[other.num_prompt_tokens :]
        return replace(sample, columns={**sample.columns, OTHER_ANSWER: answer})


@dataclass(frozen=True)
class ReferencePass:
    """Asks the reference of a run about its samples."""

    stage: Stage
    inputs: TrainingInputs
    is_default: bool
    """Whether it is worth it where the settings do not say."""
    mismatches: bool = False
    """Whether samples are compared with answers of others, too."""

    def replaced(self) -> TrainingInputs:
        """The inputs whose samples have what the reference says of them; unchanged where it is asked in every step.

        One log line says what is done and why.

        Raises:
            ConfigError: `precompute_ref_log_probs` is true and something speaks against it.
        """
        wanted = self.stage.config.language.precompute_ref_log_probs
        if self._module.reference is None or not (self.is_default if wanted is None else wanted):
            return self.inputs
        found: dict[Split, Any] = {"train": self.inputs.train}
        if self.inputs.val is not None:
            found["val"] = self.inputs.val
        reason = self._why_live(found)
        if reason is not None:
            if wanted:
                raise ConfigError(f"precompute_ref_log_probs = true: {reason}; set precompute_ref_log_probs: false")
            log.info("the reference model is asked in every step: %s", reason)
            return self.inputs
        return self._kept(found)

    @property
    def _module(self) -> ComparingModule:
        module = self.inputs.module
        assert isinstance(module, ComparingModule)
        return module

    def _why_live(self, samples: dict[Split, Any]) -> str | None:
        config = self.stage.config
        if sharding_of(config.train) in ("zero3", "fsdp2"):
            return "the model is sharded over the processes before it can be run alone"
        if config.augmentation.changes_frames:
            return "augmentation changes the frames of training clips in every epoch"
        if not all(isinstance(those, PreparedSamples | EncodedSamples) for those in samples.values()):
            return "the clips are not read from prepared shards"
        if self.mismatches and min(map(len, samples.values())) == 1:
            return "one clip has no other one to be compared with"
        return None

    def _kept(self, samples: dict[Split, Any]) -> TrainingInputs:
        kept: dict[Split, Any] = {}
        name = self._entry_name()
        cache = FeatureCache.of(self.stage.config, self.inputs.index)
        for split, those in samples.items():
            asked = MismatchedSamples(those) if self.mismatches else those
            per_part = max(_SAMPLES_PER_PART, -(-len(those) // _MOST_PARTS))
            entry = CacheEntry(cache.folder / f"reference-{name}-{split}", len(those), clips_per_part=per_part)
            started = time.monotonic()
            try:
                num_computed = cache.complete(entry, partial(self._ask, asked))
            except StoreError as problem:
                log.warning("the reference model is asked in every step, for its answers cannot be kept: %s", problem)
                return self.inputs
            log.info(
                "what the reference says of %d %s clips is kept in %s, %d of them asked about now in %.0f s",
                *(len(those), split, entry.folder, num_computed, time.monotonic() - started),
            )
            kept[split] = ReferredSamples(asked, entry)
        self._module.give_up_reference()
        return replace(self.inputs, train=kept["train"], val=kept.get("val"))

    def _ask(self, samples: Any, positions: Sequence[int]) -> Iterator[dict[str, Tensor]]:
        """What is kept of the samples at `positions`, in their order."""
        self._module.to(self.inputs.compute.device).eval()
        lengths = samples.token_lengths(prompts_only=False) * self.stage.rows_per_sample
        windows = [positions[start : start + _SORTED_AT_ONCE] for start in range(0, len(positions), _SORTED_AT_ONCE)]
        batches = [
            batch
            for window in windows
            for batch in passes_of(sorted(window, key=lambda position: int(lengths[position])), lengths)
        ]
        totals = run_batches(
            samples,
            lambda batch: self._module.reference_totals(**batch).cpu(),
            collate=self.inputs.collate,
            batches=batches,
            compute=self.inputs.compute,
            num_workers=self.inputs.num_workers,
            what="reference passes",
        )
        found: dict[int, Tensor] = {}
        made = zip(batches, totals, strict=True)
        for position in positions:
            while position not in found:
                found.update(zip(*next(made), strict=True))
            yield {REFERENCE: found.pop(position)}

    def _entry_name(self) -> str:
        reference, backbone = self._module.reference, self.inputs.module.backbone
        assert reference is not None
        described = fingerprint(
            language_model_of(reference.backbone_of(backbone)),
            reference.weights(backbone),
            index=self.inputs.index,
            processor=self.inputs.processor,
            compute=self.inputs.compute,
            more={
                "kept": "reference",
                "stage": self.stage.config.method.stage,
                "ld_alpha": self.stage.config.language.ld_alpha,
            },
        )
        return described[:16]


def times_seen(inputs: TrainingInputs, stage: Stage) -> float:
    """How often a run of the settings sees each training sample, on average."""
    train = stage.config.train
    if train.max_steps <= 0:
        return train.num_train_epochs
    at_once = train.per_device_train_batch_size * train.gradient_accumulation_steps * world_size()
    return train.max_steps * at_once / len(inputs.train)
