"""A Trainer with checkpoints that survive interruptions, in one process and in many."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ivcp.distributed.disks import Disk
from ivcp.distributed.launched import (
    gathered,
    num_processes,
    on_main_process,
    shard_on_cpu,
    sharded_layers,
    sharding_of,
    wait_for_all,
)
from ivcp.distributed.weights import gather_weights
from ivcp.settings import RunConfig
from ivcp.training.checkpoints.folder import (
    CheckpointError,
    CheckpointInfo,
    check_resumable,
    delete_old_checkpoints,
    writing_checkpoint,
)
from ivcp.training.checkpoints.mirror import CheckpointMirror
from ivcp.training.interruption import StopOnTermination, TrainingInterrupted
from ivcp.training.metered_trainer import MeteredTrainer

from transformers import TrainingArguments  # isort: skip

log = logging.getLogger(__name__)

_SCHEDULER_FILE = "scheduler.pt"


class ResumableTrainer(MeteredTrainer):
    """Writes checkpoints that are whole or do not count, and goes on from them, however weights are spread.

    What a checkpoint holds beside the files of `_save`: the optimizer's state (as a whole where every process has it,
    else in DeepSpeed's or torch.distributed.checkpoint's files), the scheduler, and each process's random state.
    """

    is_fsdp_enabled: bool

    def __init__(
        self,
        *,
        config: RunConfig,
        model: nn.Module,
        args: TrainingArguments,
        disk: Disk | None = None,
        mirror: CheckpointMirror | None = None,
        **others: Any,
    ) -> None:
        self.run_config = config
        self.disk = disk or Disk.shared()
        self.mirror = mirror
        self.sharding = sharding_of(config.train)
        self._termination = StopOnTermination()
        if self.sharding == "fsdp2":
            args.fsdp_plugin_args["transformer_cls_names_to_wrap"] = ",".join(sharded_layers(model))
        super().__init__(model=model, args=args, **others)
        self.add_callback(self._termination)

    def create_accelerator_and_postprocess(self) -> None:
        """Called by transformers when the trainer is made."""
        super().create_accelerator_and_postprocess()
        if self.sharding == "fsdp2" and not self.is_fsdp_enabled:
            shard_on_cpu(self.accelerator, self.args)
            self.is_fsdp_enabled = True

    def train(self, resume_from_checkpoint: str | bool | None = None, **others: Any) -> Any:
        """Trains, from the checkpoint where one is given.

        Raises:
            CheckpointError: a run spread in this way cannot go on from the checkpoint, or one cannot be written.
            TrainingInterrupted: SIGTERM came; there is a checkpoint.
        """
        if isinstance(resume_from_checkpoint, str):
            check_resumable(Path(resume_from_checkpoint), sharding=self.sharding, num_processes=num_processes())
        with self._termination.listening():
            output = super().train(resume_from_checkpoint=resume_from_checkpoint, **others)
            if self.mirror:
                self.mirror.wait()
        if self._termination.stopped:
            checkpoint = str(self._checkpoint_dir())
            log.warning("interrupted by SIGTERM behind step %d: run the same command again to go on from %s",
                        self.state.global_step, checkpoint)  # fmt: skip
            raise TrainingInterrupted(checkpoint)
        return output

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Writes the model's directory: all processes gather the weights, the first one writes them."""
        weights = gather_weights(self.model, wanted=self.is_saved)
        if self.args.should_save:
            self._save(output_dir or self.args.output_dir, state_dict=weights)
        wait_for_all()

    def is_saved(self, name: str, value: torch.Tensor) -> bool:
        """Whether `_save` writes an entry of the model's `state_dict`."""
        return True

    @property
    def best_checkpoint(self) -> Path | None:
        """The checkpoint with the best validation so far, where it is still there."""
        # Not `best_model_checkpoint`, a path that transformers forgets where the run's folder is another one.
        found = Path(self.args.output_dir) / f"checkpoint-{self.state.best_global_step}"
        return found if found.is_dir() else None

    def _checkpoint_dir(self) -> Path:
        return Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        info = CheckpointInfo(
            step=self.state.global_step,
            sharding=self.sharding,
            num_processes=num_processes(),
            resumable=not self.args.save_only_model,
        )
        with writing_checkpoint(self._checkpoint_dir(), info, self.disk):
            super()._save_checkpoint(model, trial)
        if self.disk.is_keeper:
            self._keep_checkpoints()
        wait_for_all()

    def _keep_checkpoints(self) -> None:
        limit, best = self.run_config.train.save_total_limit, self.best_checkpoint
        if self.mirror:
            self.mirror.send(self._checkpoint_dir(), limit=limit, best=best.name if best else None)
        in_use = self.mirror.in_use if self.mirror else ()
        delete_old_checkpoints(Path(self.args.output_dir), limit=limit, best=best, in_use=in_use)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.sharding == "none":
            super()._save_optimizer_and_scheduler(output_dir)
            return
        if self.sharding == "fsdp2":
            from accelerate.utils import save_fsdp_optimizer

            plugin = self.accelerator.state.fsdp_plugin
            save_fsdp_optimizer(plugin, self.accelerator, self.optimizer, self.model, output_dir)
        else:
            # Frozen weights are the base model's: they need not be in every checkpoint.
            self.model_wrapped.save_checkpoint(output_dir, exclude_frozen_parameters=True)
        if self.args.should_save:
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / _SCHEDULER_FILE)

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: str | None) -> Any:
        if self.sharding == "none":
            return super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)
        if resume_from_checkpoint and self.sharding == "fsdp2":
            self._load_from_checkpoint(resume_from_checkpoint)
        prepared = super()._prepare_for_training(max_steps, train_dataloader, None)
        if resume_from_checkpoint:
            self._load_sharded_state(resume_from_checkpoint)
        return prepared

    def _load_sharded_state(self, checkpoint: str) -> None:
        if self.sharding == "fsdp2":
            from accelerate.utils import load_fsdp_optimizer

            plugin = self.accelerator.state.fsdp_plugin
            load_fsdp_optimizer(plugin, self.accelerator, self.optimizer, self.model, checkpoint)
        else:
            found, _ = self.model_wrapped.load_checkpoint(checkpoint, load_module_strict=False)
            if found is None:
                raise CheckpointError(f"{checkpoint} holds no state that DeepSpeed can read")
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / _SCHEDULER_FILE, weights_only=True))

    def _finalize_training(self, *arguments: Any, **options: Any) -> Any:
        if self.args.load_best_model_at_end:
            # The first process's, whose disk has it, though the others' may not; its path differs between nodes.
            name = on_main_process(lambda: self.best_checkpoint.name if self.best_checkpoint else None)
            self.state.best_model_checkpoint = str(Path(self.args.output_dir) / name) if name else None
        return super()._finalize_training(*arguments, **options)

    def _load_best_model(self) -> None:
        if self._termination.stopped:
            return
        best = Path(self.state.best_model_checkpoint)
        log.info("loading the best checkpoint %s (%s)", best, self.state.best_metric)
        self._bring(best)
        self._load_from_checkpoint(str(best))

    def _bring(self, checkpoint: Path) -> None:
        """Completes a checkpoint on disks that hold only what their own processes wrote."""
        if self.disk.count == 1 or self.mirror is None:
            return
        self.mirror.wait()
        gathered(None)  # all parts are uploaded
        if self.disk.is_keeper and self.disk.number > 0:
            self.mirror.fetch(checkpoint.name, checkpoint.parent)
        gathered(None)
