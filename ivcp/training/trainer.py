"""transformers' Trainer for the action classifier: parameter groups and complete checkpoints."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.data_loader import DataLoaderShard
from torch import nn
from torch.utils.data import DataLoader

from ivcp.distributed.disks import Disk
from ivcp.distributed.processes import Processes
from ivcp.distributed.weights import write_weights
from ivcp.models.processor import ClipProcessor
from ivcp.records import Labels
from ivcp.settings import RunConfig
from ivcp.stages.action_cls.collator import TrainingCollator
from ivcp.stages.action_cls.files import (
    DECODER_FILE,
    ClassifierInfo,
    ModelFilesError,
    check_complete,
    load_backbone,
    load_decoder,
    read_token_row,
    save_backbone,
    save_classifier_files,
    weights_below,
)
from ivcp.stages.action_cls.module import ActionClassifier
from ivcp.training.batches import planned_batches
from ivcp.training.checkpoints.mirror import CheckpointMirror
from ivcp.training.parameter_groups import parameter_groups
from ivcp.training.resumable_trainer import ResumableTrainer

# Behind the imports above, which make torchvision importable where it is not.
from transformers import TrainingArguments  # isort: skip
from transformers.trainer_utils import seed_worker  # isort: skip


class ActionTrainer(ResumableTrainer):
    """Trains an `ActionClassifier` on prepared clips.

    Every directory it writes, checkpoints included, is a complete adapter directory.
    """

    def __init__(
        self,
        classifier: ActionClassifier,
        *,
        arguments: TrainingArguments,
        processor: ClipProcessor,
        labels: Labels,
        config: RunConfig,
        info: ClassifierInfo,
        train_clips: Any,
        val_clips: Any | None,
        callbacks: list[Any] | None = None,
        disk: Disk | None = None,
        mirror: CheckpointMirror | None = None,
    ) -> None:
        self.clip_processor = processor
        self.labels = labels
        self.info = info
        self.training_collator = TrainingCollator(
            processor,
            num_classes=labels.num_classes,
            with_answers=config.action_cls.action_cls_token_loss_weight > 0,
            mixup_alpha=config.loss.mixup_alpha,
            seed=config.train.seed,
        )
        self.batches = planned_batches(config, train_clips, Processes.of(arguments))
        super().__init__(
            config=config,
            model=classifier,
            args=arguments,
            data_collator=self.training_collator,
            train_dataset=train_clips,
            eval_dataset=val_clips,
            compute_metrics=accuracy,
            callbacks=callbacks,
            disk=disk,
            mirror=mirror,
        )

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The optimizer over `parameter_groups`."""
        optimizer_class, settings = self.get_optimizer_cls_and_kwargs(self.args, self.model)
        decayed = set(self.get_decay_parameter_names(self.model))
        groups = parameter_groups(self.model, self.run_config, decayed)
        optimizer: torch.optim.Optimizer = optimizer_class(groups, **settings)
        self.optimizer = optimizer
        return optimizer

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches as `planned_batches` has them, or as transformers makes them."""
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
        """Batches as they are predicted: without answers, never mixed."""
        self.data_collator: Any = self.clip_processor.collate
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = self.training_collator

    def get_test_dataloader(self, test_dataset: Any) -> Any:
        """As `get_eval_dataloader`."""
        return self.get_eval_dataloader(test_dataset)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Metrics of the validation split; leaves the random state as it was.

        A data loader draws from it at each start, so that a run that resumes behind a validation would differ.
        """
        with torch.random.fork_rng():
            metrics: dict[str, float] = super().evaluate(*args, **kwargs)
        return metrics

    def is_saved(self, name: str, value: torch.Tensor) -> bool:
        """Whether an entry of the classifier's `state_dict` is written: what only the base model knows is not."""
        is_full = self.run_config.method.finetuning_type == "full"
        return is_full or value.requires_grad or not name.startswith("backbone.")

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        assert state_dict is not None
        directory = Path(output_dir or self.args.output_dir)
        directory.mkdir(parents=True, exist_ok=True)
        save_backbone(
            self.model,
            directory,
            only_trained=self.run_config.method.finetuning_type == "freeze",
            weights=weights_below("backbone", state_dict),
        )
        save_classifier_files(
            directory,
            classifier=self.model,
            processor=self.clip_processor,
            labels=self.labels,
            config=self.run_config,
            info=self.info.model_copy(update={"trained_steps": self.state.global_step}),
            weights=state_dict,
        )

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        load_weights(self.model, Path(resume_from_checkpoint), labels=self.labels)


def load_weights(classifier: ActionClassifier, directory: Path, *, labels: Labels) -> None:
    """Puts an adapter directory's weights into a classifier of the same shape.

    The classifier's own weights may be spread over processes, which then all do this.

    Raises:
        ModelFilesError: the directory is incomplete, for other labels, or for a model of another shape.
    """
    check_complete(directory)
    decoder = load_decoder(directory / DECODER_FILE, labels=labels)
    weights = {f"decoder.{name}": value for name, value in decoder.state_dict().items()}
    try:
        write_weights(classifier, weights | {"action_token_row": read_token_row(directory)})
    except ValueError as error:
        raise ModelFilesError(f"{directory} does not fit this run's settings: {error}") from error
    load_backbone(classifier.backbone, directory)


def accuracy(prediction: Any) -> dict[str, float]:
    """Top-1 accuracy of a Trainer's predictions: logits (clips, classes), labels (clips,)."""
    hits = prediction.predictions.argmax(axis=-1) == prediction.label_ids
    return {"top1_accuracy": float(hits.mean())}
