"""transformers' Trainer for any stage: complete directories, checkpoints that survive interruptions, meters.

It is one class over transformers' own. `OVERRIDDEN` names the private methods of transformers that it overrides; its
test holds their signatures, and fails when a new version of transformers changes one.
"""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.data_loader import DataLoaderShard
from torch import nn
from torch.utils.data import DataLoader

from ivcp.data.seen_clips import SeenClips
from ivcp.distributed.disks import Disk
from ivcp.distributed.processes import gather_values, on_owner, wait_for_all
from ivcp.distributed.rank import world_size
from ivcp.distributed.sharding import sharded_layers, sharding_of
from ivcp.distributed.weights import gather_weights, match_sharded_precision
from ivcp.models.backbone import BackboneModule
from ivcp.models.processor import Processor
from ivcp.socket_paths import make_socket_paths_fit
from ivcp.stages.directory import check_base, load_weights, save_directory
from ivcp.stages.model_info import ModelInfo
from ivcp.stages.protocol import Collate, Stage
from ivcp.torchvision_compat import register_missing_operators
from ivcp.training.batches import planned_batches
from ivcp.training.checkpoints.folder import (
    CheckpointInfo,
    check_resumable,
    delete_old_checkpoints,
    writing_checkpoint,
)
from ivcp.training.checkpoints.mirror import CheckpointMirror
from ivcp.training.checkpoints.sharded_state import load_sharded_state, save_sharded_state
from ivcp.training.loop.finite import CLIPS, FiniteSteps, NamedBatches, check_metrics, check_outputs, check_weights
from ivcp.training.loop.interruption import StopOnTermination, TrainingInterrupted
from ivcp.training.loop.meter import StepMeter
from ivcp.training.loop.reported import ReportedNumbers
from ivcp.training.loop.resumption import EpochTrainer
from ivcp.training.loop.weights import StepWeigher
from ivcp.training.parameter_groups import parameter_groups

register_missing_operators()

from transformers import TrainingArguments  # noqa: E402
from transformers.trainer_utils import seed_worker  # noqa: E402

log = logging.getLogger(__name__)

OVERRIDDEN = (
    "_save",
    "_save_checkpoint",
    "_save_optimizer_and_scheduler",
    "_get_grad_norm",
    "_prepare_inputs",
    "_prepare_for_training",
    "_load_from_checkpoint",
    "_finalize_training",
    "_load_best_model",
)
"""The private methods of transformers' Trainer that `StageTrainer` overrides."""


class StageTrainer(EpochTrainer):
    """Trains the module of a stage on prepared samples, sharded or not.

    Every directory it writes, checkpoints included, is a complete adapter directory. A checkpoint is whole or does not
    count; it holds, beside the files of the model, the optimizer's state, the scheduler and each process's random
    state. Rows of its log have `StepMeter`'s numbers and `learning_rate/<part>`.
    """

    def __init__(
        self,
        module: BackboneModule,
        *,
        stage: Stage,
        arguments: TrainingArguments,
        processor: Processor,
        info: ModelInfo,
        seen: SeenClips,
        train_samples: Any,
        val_samples: Any | None,
        train_collate: Collate,
        eval_collate: Collate,
        callbacks: list[Any] | None = None,
        disk: Disk | None = None,
        mirror: CheckpointMirror | None = None,
    ) -> None:
        self.stage = stage
        self.sample_processor = processor
        self.info, self.seen = info, seen
        self.train_collate, self.eval_collate = NamedBatches(train_collate), eval_collate
        self.disk, self.mirror = disk or Disk.shared(), mirror
        self.sharding = sharding_of(stage.config.train)
        self.batches = planned_batches(stage, train_samples, train_collate)
        self._termination = StopOnTermination()
        self._rates: dict[str, float] = {}
        self._num_clips = 0
        self._output_dir = Path(arguments.output_dir)
        self._finite = FiniteSteps(self._output_dir)
        self._weigher = StepWeigher(stage.loss_counts, self.batches)
        self._numbers = ReportedNumbers()
        self._validated: Any = val_samples
        if self.sharding == "fsdp2":
            arguments.fsdp_plugin_args["transformer_cls_names_to_wrap"] = ",".join(sharded_layers(module))
        super().__init__(
            model=module,
            args=arguments,
            data_collator=self.train_collate,
            train_dataset=train_samples,
            eval_dataset=val_samples,
            compute_metrics=self._measure if stage.target_names else None,
            callbacks=callbacks,
        )
        self.meter = StepMeter(num_processes=self.args.world_size)
        self.add_callback(self._termination)

    # Training

    def train(self, resume_from_checkpoint: str | bool | None = None, **others: Any) -> Any:
        """Trains, from the checkpoint where one is given.

        Raises:
            CheckpointError: a run sharded in this way cannot go on from the checkpoint, or one cannot be written.
            ModelFilesError: the checkpoint is incomplete, or of another base model.
            NonFiniteError: a loss, a gradient or a metric is not finite; nothing of that step is in a checkpoint.
            TrainingInterrupted: SIGTERM came; there is a checkpoint.
        """
        if isinstance(resume_from_checkpoint, str):
            check_resumable(Path(resume_from_checkpoint), sharding=self.sharding, num_processes=world_size())
            if self.sharding.startswith("zero"):  # DeepSpeed reads the weights itself, and nothing else
                check_base(Path(resume_from_checkpoint), self.stage.config.model)
                self.stage.go_on(Path(resume_from_checkpoint), self.model)
            self.seen = self.seen.joined(SeenClips.of_directory(Path(resume_from_checkpoint)))  # of other rows, maybe
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

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The optimizer over `parameter_groups`."""
        optimizer_class, settings = self.get_optimizer_cls_and_kwargs(self.args, self.model)
        decayed = set(self.get_decay_parameter_names(self.model))
        groups = parameter_groups(self.model, self.stage, decayed)
        optimizer: torch.optim.Optimizer = optimizer_class(groups, **settings)
        self.optimizer = optimizer
        return optimizer

    def get_batch_samples(self, *arguments: Any) -> Any:
        """The batches of one optimizer step."""
        with self.meter.waiting():
            batches, num_items = super().get_batch_samples(*arguments)
        self._weigher.begin(batches, self.accelerator)
        return batches, num_items

    def training_step(self, model: Any, inputs: Any, *arguments: Any) -> Any:
        """One forward and backward pass; returns the loss."""
        clips = inputs.pop(CLIPS)
        self.meter.saw(inputs, num_clips=len(clips))
        self._num_clips = len(clips)
        self._rates = {f"learning_rate/{group['name']}": group["lr"] for group in self.optimizer.param_groups}
        loss = super().training_step(model, inputs, *arguments)
        self._finite.saw(loss, clips)
        self._numbers.saw(self.model.numbers)
        return loss

    def compute_loss(self, model: Any, inputs: Any, *arguments: Any, **options: Any) -> Any:
        """The loss; a training batch weighs as much as it has of what the loss is the mean over."""
        weight = self._weigher.weight(inputs, num_clips=self._num_clips) if model.training else None
        loss = super().compute_loss(model, inputs, *arguments, **options)
        return loss if weight is None else loss * weight

    def _prepare_inputs(self, inputs: Any) -> Any:
        """On the device. With DeepSpeed transformers rounds what is no whole number to the model's precision, which is
        too coarse for numbers that are to be predicted."""
        labels, prepared = inputs.get("labels"), super()._prepare_inputs(inputs)
        if labels is not None and labels.dtype == torch.float64:
            prepared["labels"] = labels.to(self.args.device)
        return prepared

    def log(self, logs: dict[str, float], *arguments: Any) -> None:
        """Called by transformers with a row of training, of validation, or of the whole run."""
        if "loss" in logs:
            logs |= self._rates | self.meter.row() | self._numbers.row()
        super().log(logs, *arguments)

    # Data

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches as `planned_batches` has them, or as transformers makes them."""
        make_socket_paths_fit()
        if self.batches is None:
            return cast(DataLoader[Any], super().get_train_dataloader())
        # Not through accelerate's `prepare`, which would divide the batches among the processes once more.
        return DataLoaderShard(  # type: ignore[no-any-return]
            self.train_dataset,
            batch_sampler=self.batches,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
            persistent_workers=self.args.dataloader_num_workers > 0,
            worker_init_fn=partial(
                seed_worker, num_workers=self.args.dataloader_num_workers, rank=self.args.process_index
            ),
        )

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """Batches as they are predicted."""
        self._validated = self.eval_dataset if eval_dataset is None else eval_dataset
        self.data_collator: Any = self.eval_collate
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = self.train_collate

    def get_test_dataloader(self, test_dataset: Any) -> Any:
        """As `get_eval_dataloader`."""
        return self.get_eval_dataloader(test_dataset)

    # Validation

    def evaluate(self, *arguments: Any, **options: Any) -> dict[str, float]:
        """Metrics of the validation split; leaves the random state as it was.

        A data loader draws from it at each start, so that a run that resumes behind a validation would differ.

        Raises:
            NonFiniteError: an output or a metric is not finite: it would make any checkpoint the best.
        """
        with self.meter.pause(), torch.random.fork_rng(devices=[]):
            metrics: dict[str, float] = super().evaluate(*arguments, **options)
        check_metrics(metrics, step=self.state.global_step, output_dir=self._output_dir)
        return metrics

    def _measure(self, prediction: Any) -> dict[str, float]:
        outputs = prediction.predictions
        check_outputs(outputs, self._validated, step=self.state.global_step, output_dir=self._output_dir)
        return self.stage.metrics_of(self.model)(outputs, prediction.label_ids)

    # Directories and checkpoints

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Writes the model's directory: all processes gather the weights, the owner rank writes them.

        Raises:
            NonFiniteError: in all processes, where a weight that trained is not finite.
        """
        weights = gather_weights(self.model, wanted=self.is_saved)
        trains = {name for name, value in self.model.named_parameters() if value.requires_grad}
        trained = {name: value for name, value in weights.items() if name in trains}
        check_weights(trained, step=self.state.global_step, output_dir=self._output_dir)
        if self.args.should_save:
            self._save(output_dir or self.args.output_dir, state_dict=weights)
        wait_for_all()

    def is_saved(self, name: str, value: torch.Tensor) -> bool:
        """Whether an entry of the module's `state_dict` is written: what only the base model knows is not."""
        is_full = self.stage.config.method.finetuning_type == "full"
        return is_full or value.requires_grad or not name.startswith("backbone.")

    @property
    def best_checkpoint(self) -> Path | None:
        """The checkpoint with the best validation so far, where it is still there."""
        # Not `best_model_checkpoint`, a path that transformers forgets where the run's folder is another one.
        found = self._output_dir / f"checkpoint-{self.state.best_global_step}"
        return found if found.is_dir() else None

    def _checkpoint_dir(self) -> Path:
        return self._output_dir / f"checkpoint-{self.state.global_step}"

    def _keep_checkpoints(self) -> None:
        limit, best = self.stage.config.train.save_total_limit, self.best_checkpoint
        if self.mirror:
            self.mirror.send(self._checkpoint_dir(), limit=limit, best=best.name if best else None)
        in_use = self.mirror.in_use if self.mirror else ()
        delete_old_checkpoints(self._output_dir, limit=limit, best=best, in_use=in_use)

    def _complete(self, checkpoint: Path) -> None:
        """Completes a checkpoint on disks that hold only what their own processes wrote."""
        if self.disk.count == 1 or self.mirror is None:
            return
        self.mirror.wait()
        gather_values(None)  # all parts are uploaded
        if self.disk.is_owner and self.disk.number > 0:
            self.mirror.fetch(checkpoint.name, checkpoint.parent)
        gather_values(None)

    # Private methods of transformers: those of `OVERRIDDEN`, and no others

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        assert state_dict is not None
        save_directory(
            Path(output_dir or self.args.output_dir),
            stage=self.stage,
            module=self.model,
            processor=self.sample_processor,
            info=self.info.model_copy(update={"trained_steps": self.state.global_step}),
            seen=self.seen,
            weights=state_dict,
        )

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        info = CheckpointInfo(
            step=self.state.global_step,
            sharding=self.sharding,
            num_processes=world_size(),
            resumable=not self.args.save_only_model,
        )
        with self.meter.pause():
            with writing_checkpoint(self._checkpoint_dir(), info, self.disk):
                super()._save_checkpoint(model, trial)
            if self.disk.is_owner:
                self._keep_checkpoints()
            wait_for_all()

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.sharding == "none":
            super()._save_optimizer_and_scheduler(output_dir)
        else:
            save_sharded_state(self, Path(output_dir))

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        has_scaler = self.accelerator.scaler is not None or (self.args.fp16 and self.sharding.startswith("zero"))
        self._finite.check(norm, step=self.state.global_step + 1, skips_overflow=has_scaler)
        return norm

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: str | None) -> Any:
        if self.sharding == "zero3":
            match_sharded_precision(self.model, self.accelerator.state.deepspeed_plugin.hf_ds_config.dtype())
        if self.sharding == "fsdp2" and resume_from_checkpoint:
            self._load_from_checkpoint(resume_from_checkpoint)
        ours = resume_from_checkpoint if self.sharding != "none" else None
        prepared = super()._prepare_for_training(max_steps, train_dataloader, None if ours else resume_from_checkpoint)
        if ours:
            load_sharded_state(self, Path(ours))
        self.place_schedule()
        return prepared

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        load_weights(self.stage, self.model, Path(resume_from_checkpoint))

    def _finalize_training(self, *arguments: Any, **options: Any) -> Any:
        if self.args.load_best_model_at_end:
            # The owner's, whose disk has it, though the others' may not; its path differs between nodes.
            name = on_owner(lambda: self.best_checkpoint.name if self.best_checkpoint else None)
            self.state.best_model_checkpoint = str(Path(self.args.output_dir) / name) if name else None
        return super()._finalize_training(*arguments, **options)

    def _load_best_model(self) -> None:
        if self._termination.stopped:
            return
        best = Path(self.state.best_model_checkpoint)
        log.info("loading the best checkpoint %s (%s)", best, self.state.best_metric)
        self._complete(best)
        self._load_from_checkpoint(str(best))
