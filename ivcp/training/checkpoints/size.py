"""How much disk space a run's checkpoints take, from its settings alone."""

from __future__ import annotations

import math

import torch

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
    num_clips, num_processes = index.num_clips["train"], config.launch.num_processes
    steps_per_epoch = _steps_per_epoch(config, num_clips, num_processes)
    steps = planned_steps(config, num_clips, num_processes)
    saved = {
        "no": 1,  # by SIGTERM
        "epoch": math.ceil(steps / steps_per_epoch),
        "steps": math.ceil(1 / train.save_steps if train.save_steps < 1 else steps / train.save_steps),
    }[train.save_strategy]
    kept = saved if train.save_total_limit is None else min(saved, train.save_total_limit + 1)
    return kept + 2


def planned_steps(config: RunConfig, num_clips: int, num_processes: int) -> int:
    """Optimizer steps of a training on so many clips; with `tokens_per_batch` about so many."""
    train = config.train
    per_epoch = _steps_per_epoch(config, num_clips, num_processes)
    return train.max_steps if train.max_steps > 0 else math.ceil(per_epoch * train.num_train_epochs)


def _steps_per_epoch(config: RunConfig, num_clips: int, num_processes: int) -> int:
    train = config.train
    at_once = num_processes * train.per_device_train_batch_size * train.gradient_accumulation_steps
    return math.ceil(num_clips / at_once) * stage_of(config).updates_per_batch
