"""How weights and optimizer state are sharded over processes: DeepSpeed's ZeRO or FSDP2, as the settings say."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any, Literal

import torch
from torch import nn

from ivcp.distributed.deepspeed_files import deepspeed_settings, zero_stage
from ivcp.distributed.rank import world_size
from ivcp.settings import ConfigError, TrainConfig

log = logging.getLogger(__name__)

Sharding = Literal["none", "zero1", "zero2", "zero3", "fsdp2"]


def check_distribution(train: TrainConfig) -> None:
    """Checks `deepspeed` and `fsdp` before any work is done.

    Raises:
        ConfigError: names the setting and what to do.
    """
    if train.deepspeed and train.fsdp:
        raise ConfigError(f"deepspeed = {train.deepspeed} and fsdp = {train.fsdp} exclude each other: keep one")
    if train.deepspeed:
        deepspeed_settings(train.deepspeed)
    if train.fsdp:
        if world_size() == 1:
            raise ConfigError(
                f"fsdp = {train.fsdp}: there is one process, and none to shard the weights with; start with "
                "`torchrun --nproc-per-node N -m ivcp.cli.train …` or remove fsdp"
            )
        if not has_devices_for_fsdp():
            raise ConfigError(
                f"fsdp = {train.fsdp} needs GPUs: accelerate would silently train without sharding; on CPUs set "
                "deepspeed: z3, or remove fsdp"
            )


def has_devices_for_fsdp() -> bool:
    """Whether accelerate shards with FSDP2 here: on CPUs it falls back to DDP."""
    return torch.cuda.is_available()


def sharding_of(train: TrainConfig) -> Sharding:
    """How the settings shard optimizer state and weights over the processes."""
    if train.fsdp:
        return "fsdp2"
    if not train.deepspeed:
        return "none"
    stages: dict[int, Sharding] = {0: "zero1", 1: "zero1", 2: "zero2", 3: "zero3"}
    return stages[zero_stage(train.deepspeed)]


def fsdp_settings(train: TrainConfig) -> dict[str, Any]:
    """transformers' `fsdp_config` for FSDP2."""
    words = (train.fsdp or "").replace(",", " ").split()
    return {
        "version": 2,
        "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "reshard_after_forward": "full_shard" in words,
        "cpu_offload": "offload" in words and torch.cuda.is_available(),
        # Each process writes its shard of the optimizer's state, readable by any number of processes.
        "state_dict_type": "FULL_STATE_DICT" if train.save_only_model else "SHARDED_STATE_DICT",
        "cpu_ram_efficient_loading": False,
    }


def sharded_layers(model: nn.Module) -> list[str]:
    """Class names of the blocks that FSDP gathers one by one: those that the model's parts say must not be split.

    Everything else, the token's row and the decoder among it, belongs to the root.

    Raises:
        ConfigError: the model names none.
    """
    from transformers import PreTrainedModel

    named: set[str] = set()
    for part in model.modules():
        if isinstance(part, PreTrainedModel):
            named.update(part._no_split_modules or ())
    present = sorted(named & {type(part).__name__ for part in model.modules()})
    if not present:
        raise ConfigError("fsdp: this model does not say which of its blocks can be sharded; use deepspeed: z3 instead")
    return present


def launcher_settings(environment: MutableMapping[str, str]) -> dict[str, str]:
    """Settings that `accelerate launch` passes through the environment, taken out of it, by this project's names.

    Only these names are read from here on, so that one description of the run holds everywhere (FSDP1, which
    accelerate's older files ask for, becomes FSDP2).
    """
    settings: dict[str, str] = {}
    if environment.pop("ACCELERATE_USE_FSDP", "false").lower() == "true":
        offload = environment.get("FSDP_OFFLOAD_PARAMS", "false").lower() == "true"
        settings["fsdp"] = "full_shard offload" if offload else "full_shard"
    if environment.pop("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true":
        offload = "cpu" in environment.get("ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE", "")
        stage = environment.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2")
        file = environment.get("ACCELERATE_DEEPSPEED_CONFIG_FILE")
        settings["deepspeed"] = file or f"z{stage}{'_offload' if offload and stage != '1' else ''}"
    for name in [name for name in environment if name.startswith(("FSDP_", "ACCELERATE_DEEPSPEED_"))]:
        del environment[name]
    if settings:
        log.info("accelerate's configuration: %s", ", ".join(f"{key}: {value}" for key, value in settings.items()))
    return settings
