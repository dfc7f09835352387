"""Batches that transformers does not make itself: planned by `ivcp.data.prepared.batches`, as the settings ask for."""

from __future__ import annotations

import logging
from typing import Any

from ivcp.data.prepared.batches import PlannedBatches, column_of, token_lengths
from ivcp.data.prepared.rows import PacksRows, SharesPrompts
from ivcp.distributed.rank import rank, world_size
from ivcp.stages.protocol import Collate, Stage
from ivcp.training.augmentation import AugmentedSamples

log = logging.getLogger(__name__)


def planned_batches(stage: Stage, samples: Any, collate: Collate) -> PlannedBatches | None:
    """The batches of a run that asks for a token budget, packed rows, balanced classes or the same batches again and
    again; `collate` makes them.

    Null leaves them to transformers.
    """
    config, repeats = stage.config, stage.updates_per_batch
    row_tokens = collate.row_tokens if isinstance(collate, PacksRows) else None
    is_usual = config.speed.tokens_per_batch is None and row_tokens is None
    if is_usual and not config.loss.balanced_sampling and repeats == 1:
        return None
    lengths = token_lengths(samples, prompts_only=not stage.reads_answers) * stage.rows_per_sample
    if isinstance(collate, SharesPrompts) and collate.shares_prompts:
        lengths -= token_lengths(samples, prompts_only=True) * (stage.rows_per_sample - 1)
    batches = PlannedBatches(
        lengths,
        clips_per_batch=config.train.per_device_train_batch_size,
        tokens_per_batch=config.speed.tokens_per_batch,
        row_tokens=row_tokens,
        labels=column_of(samples, "label") if config.loss.balanced_sampling else None,
        numbers_draws=isinstance(samples, AugmentedSamples),
        seed=config.train.seed,
        rank=rank(),
        num_processes=world_size(),
        accumulation=config.train.gradient_accumulation_steps,
        repeats=repeats,
    )
    sizes = batches.plan(0).sizes
    log.info(
        "%d batches per process and epoch, of %d to %d clips, %.1f %% of their tokens are padding",
        *(len(batches), sizes.min(), sizes.max(), 100 * batches.padding_share(0)),
    )
    return batches
