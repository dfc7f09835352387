"""The optimizer's state of sharded runs: DeepSpeed's files, or torch.distributed.checkpoint's under FSDP2.

transformers writes the state of runs in which it is replicated; these functions write that of the others.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ivcp.training.checkpoints.folder import CheckpointError

_SCHEDULER_FILE = "scheduler.pt"


def save_sharded_state(trainer: Any, directory: Path) -> None:
    """Writes optimizer and scheduler of a transformers Trainer whose state is sharded; all processes call this."""
    if trainer.sharding == "fsdp2":
        from accelerate.utils import save_fsdp_optimizer

        plugin = trainer.accelerator.state.fsdp_plugin
        save_fsdp_optimizer(plugin, trainer.accelerator, trainer.optimizer, trainer.model, str(directory))
    else:
        # Frozen weights are the base model's: they need not be in every checkpoint.
        trainer.model_wrapped.save_checkpoint(str(directory), exclude_frozen_parameters=True)
    if trainer.args.should_save:
        torch.save(trainer.lr_scheduler.state_dict(), directory / _SCHEDULER_FILE)


def load_sharded_state(trainer: Any, directory: Path) -> None:
    """Reads what `save_sharded_state` wrote; all processes call this.

    Raises:
        CheckpointError: DeepSpeed finds no state in it.
    """
    if trainer.sharding == "fsdp2":
        from accelerate.utils import load_fsdp_optimizer

        plugin = trainer.accelerator.state.fsdp_plugin
        load_fsdp_optimizer(plugin, trainer.accelerator, trainer.optimizer, trainer.model, str(directory))
    else:
        found, _ = trainer.model_wrapped.load_checkpoint(str(directory), load_module_strict=False)
        if found is None:
            raise CheckpointError(f"{directory} holds no state that DeepSpeed can read")
    trainer.lr_scheduler.load_state_dict(torch.load(directory / _SCHEDULER_FILE, weights_only=True))
