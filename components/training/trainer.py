"""transformers' Trainer for the action classifier: parameter groups and complete checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from components.action_model import ActionClassifier, language_model_of
from components.artifacts import Labels
from components.clip_processor import ClipProcessor
from components.config import RunConfig
from components.model_files import (
    ADAPTER_CONFIG,
    DECODER_FILE,
    ClassifierInfo,
    ModelFilesError,
    check_complete,
    load_decoder,
    read_token_row,
    save_classifier_files,
    weights_below,
)
from components.sharded_weights import loading_whole, write_weights
from components.training.resumable_trainer import ResumableTrainer

# Behind the imports above, which make torchvision importable where it is not.
from transformers import TrainingArguments  # isort: skip


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
    ) -> None:
        self.clip_processor = processor
        self.labels = labels
        self.info = info
        super().__init__(
            config=config,
            model=classifier,
            args=arguments,
            data_collator=processor.collate,
            train_dataset=train_clips,
            eval_dataset=val_clips,
            compute_metrics=accuracy,
            callbacks=callbacks,
        )

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The optimizer over `parameter_groups`."""
        optimizer_class, settings = self.get_optimizer_cls_and_kwargs(self.args, self.model)
        decayed = set(self.get_decay_parameter_names(self.model))
        groups = parameter_groups(self.model, self.run_config, decayed)
        optimizer: torch.optim.Optimizer = optimizer_class(groups, **settings)
        self.optimizer = optimizer
        return optimizer

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Metrics of the validation split; leaves the random state as it was.

        A data loader draws from it at each start, so that a run that resumes behind a validation would differ.
        """
        with torch.random.fork_rng():
            metrics: dict[str, float] = super().evaluate(*args, **kwargs)
        return metrics

    def is_saved(self, name: str, value: torch.Tensor) -> bool:
        """Whether an entry of the classifier's `state_dict` is written: an adapter's base model is not."""
        return not _is_peft(self.model) or value.requires_grad or not name.startswith("backbone.")

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        assert state_dict is not None
        directory = Path(output_dir or self.args.output_dir)
        options = {"save_embedding_layers": False} if _is_peft(self.model) else {}
        self.model.backbone.save_pretrained(directory, state_dict=weights_below("backbone", state_dict), **options)
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


def parameter_groups(classifier: ActionClassifier, config: RunConfig, decayed: set[str]) -> list[dict[str, Any]]:
    """Optimizer groups: backbone and decoder, each with and without weight decay, and the token's row.

    The row's learning rate is `action_token_lr_scale` times the others'; scaling its gradient instead would have
    no effect under Adam. The row's group is the last, so that logs show the backbone's rate. `decayed` holds the
    names of the parameters that weight decay applies to.
    """
    rate, decay = config.train.learning_rate, config.train.weight_decay
    groups: dict[str, dict[str, Any]] = {}
    by_module = sorted(classifier.named_parameters(), key=lambda item: item[0] == "action_token_row")
    for name, parameter in by_module:
        if not parameter.requires_grad:
            continue
        key = name.partition(".")[0]
        is_row = key == "action_token_row"
        scale = config.method.action_token_lr_scale if is_row else 1.0
        has_decay = name in decayed and not is_row
        group = groups.setdefault(
            f"{key}_decay" if has_decay else key,
            {"name": key, "params": [], "lr": rate * scale, "weight_decay": decay if has_decay else 0.0},
        )
        group["params"].append(parameter)
    return list(groups.values())


def load_weights(classifier: ActionClassifier, directory: Path, *, labels: Labels) -> None:
    """Puts an adapter directory's weights into a classifier of the same shape.

    The classifier's own weights may be spread over processes, which then all do this.

    Raises:
        ModelFilesError: the directory is incomplete, for other labels, or for a model of another shape.
    """
    check_complete(directory)
    decoder = load_decoder(directory / DECODER_FILE, labels=labels)
    weights = {f"decoder.{name}": value for name, value in decoder.state_dict().items()}
    weights["action_token_row"] = read_token_row(directory)
    is_adapter = (directory / ADAPTER_CONFIG).is_file()
    if is_adapter != _is_peft(classifier):
        kind = "a LoRA adapter" if is_adapter else "full weights"
        raise ModelFilesError(f"{directory} holds {kind}, which do not fit this run's finetuning_type")
    saved = _adapter_weights(classifier, directory) if is_adapter else _full_weights(classifier, directory)
    weights |= {f"backbone.{name}": value for name, value in saved.items()}
    try:
        write_weights(classifier, weights)
    except ValueError as error:
        raise ModelFilesError(f"{directory} does not fit this run's settings: {error}") from error


def accuracy(prediction: Any) -> dict[str, float]:
    """Top-1 accuracy of a Trainer's predictions: logits (clips, classes), labels (clips,)."""
    hits = prediction.predictions.argmax(axis=-1) == prediction.label_ids
    return {"top1_accuracy": float(hits.mean())}


def _is_peft(classifier: ActionClassifier) -> bool:
    return language_model_of(classifier.backbone) is not classifier.backbone


def _adapter_weights(classifier: ActionClassifier, directory: Path) -> dict[str, torch.Tensor]:
    """peft's weights of a directory by the names that they have in the peft model."""
    from peft import get_peft_model_state_dict, load_peft_weights

    names = [name for name, parameter in classifier.backbone.named_parameters() if parameter.requires_grad]
    # peft renames what it saves: let it rename numbers, and look where they went.
    numbers = {name: torch.tensor(number) for number, name in enumerate(names)}
    renamed = get_peft_model_state_dict(classifier.backbone, state_dict=numbers, save_embedding_layers=False)
    name_of = {saved: names[int(number)] for saved, number in renamed.items()}
    weights = load_peft_weights(str(directory), device="cpu")
    if weights.keys() != name_of.keys():
        odd = sorted(weights.keys() ^ name_of.keys())
        raise ModelFilesError(f"{directory} does not fit this run's LoRA settings: {len(odd)} others, as {odd[0]}")
    return {name_of[name]: value for name, value in weights.items()}


def _full_weights(classifier: ActionClassifier, directory: Path) -> dict[str, torch.Tensor]:
    """The weights of a transformers model, read without DeepSpeed, which would spread them."""
    model = language_model_of(classifier.backbone)
    with loading_whole():
        saved: dict[str, torch.Tensor] = type(model).from_pretrained(directory, dtype=model.dtype).state_dict()
    return saved
