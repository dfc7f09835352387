"""How much disk space a run's checkpoints take, from its settings alone."""

from __future__ import annotations

import math

import torch

from ivcp.data.prepared.batches import PlannedBatches
from ivcp.data.prepared.reader import read_lengths
from ivcp.models.adapters import prepare_backbone
from ivcp.models.auto_class import auto_class
from ivcp.models.configuration import read_configuration
from ivcp.models.path import check_model_path
from ivcp.records import PreparedIndex
from ivcp.settings import RunConfig
from ivcp.stages.registry import stage_of

_BYTES_PER_WEIGHT = 4
_BYTES_OF_OPTIMIZER = 8
"""AdamW's two moments of each weight that trains."""
_TOLERANCE = 1.1
"""Decoder, tokenizer and processor."""


def checkpoint_bytes(config: RunConfig) -> int:
    """Bytes of one checkpoint, the optimizer's state among them; no weights are loaded.

    Raises:
        FileNotFoundError: the base model does not exist.
        UnsupportedMethodError: the model cannot be trained as asked.
    """
    name, model = config.model.required_name, config.model
    check_model_path(name)
    described = read_configuration(name, model)
    with torch.device("meta"):
        backbone = auto_class(described).from_config(described, trust_remote_code=model.trust_remote_code)
        backbone = prepare_backbone(backbone, config.method)
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in backbone.parameters()]
    trained = sum(size for size, trains in sizes if trains)
    written = sum(size for size, _ in sizes) if config.method.finetuning_type == "full" else trained
    state = 0 if config.train.save_only_model else _BYTES_OF_OPTIMIZER * trained
    return int(_TOLERANCE * (_BYTES_PER_WEIGHT * written + state))


def checkpoints_on_disk(config: RunConfig, index: PreparedIndex) -> int:
    """Most checkpoints of a run that are on its disk at once, the one being written and the result among them."""
    train = config.train
    steps_per_epoch = _steps_of_index(config, index)
    steps = _steps_in_all(config, steps_per_epoch)
    saved = {
        "no": 1,  # by SIGTERM
        "epoch": math.ceil(steps / steps_per_epoch),
        "steps": math.ceil(1 / train.save_steps if train.save_steps < 1 else steps / train.save_steps),
    }[train.save_strategy]
    kept = saved if train.save_total_limit is None else min(saved, train.save_total_limit + 1)
    return kept + 2


def planned_steps(config: RunConfig, num_clips: int, num_processes: int) -> int:
    """Optimizer steps of a training on so many clips, each in a row of its own, with batches of so many rows."""
    return _steps_in_all(config, _steps_per_epoch(config, num_clips, num_processes))


def _steps_in_all(config: RunConfig, per_epoch: int) -> int:
    train = config.train
    return train.max_steps if train.max_steps > 0 else math.ceil(per_epoch * train.num_train_epochs)


def _steps_per_epoch(config: RunConfig, num_clips: int, num_processes: int) -> int:
    train = config.train
    at_once = num_processes * train.per_device_train_batch_size * train.gradient_accumulation_steps
    return math.ceil(num_clips / at_once) * stage_of(config).updates_per_batch


def _steps_of_index(config: RunConfig, index: PreparedIndex) -> int:
    """Those of an epoch as training plans its batches; more where answers to one prompt will share it."""
    stage, train, budget = stage_of(config), config.train, config.speed.tokens_per_batch
    row_tokens = config.data.cutoff_len if stage.packs_rows else None
    if budget is None and row_tokens is None:
        return _steps_per_epoch(config, index.num_clips["train"], config.launch.num_processes)
    lengths = read_lengths(index, "train", prompts_only=not stage.reads_answers) * stage.rows_per_sample
    batches = PlannedBatches(
        lengths if budget is None else lengths.clip(max=budget),
        clips_per_batch=train.per_device_train_batch_size,
        tokens_per_batch=budget,
        row_tokens=row_tokens,
        num_processes=config.launch.num_processes,
        accumulation=train.gradient_accumulation_steps,
        repeats=stage.updates_per_batch,
    )
    return len(batches) // train.gradient_accumulation_steps
