"""transformers' Trainer for the action classifier: parameter groups and complete checkpoints."""

from __future__ import annotations

import logging
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
    check_complete,
    load_decoder,
    load_token_row,
    save_classifier_files,
)
from components.training.cached_clips import ClipCollator

# Behind the imports above, which make torchvision importable where it is not.
from transformers import Trainer, TrainingArguments  # isort: skip

log = logging.getLogger(__name__)


class ActionTrainer(Trainer):  # type: ignore[misc]
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
        self.run_config = config
        self.info = info
        super().__init__(
            model=classifier,
            args=arguments,
            data_collator=ClipCollator(processor),
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

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        directory = Path(output_dir or self.args.output_dir)
        self.model.backbone.save_pretrained(directory, **_peft_options(self.model))
        save_classifier_files(
            directory,
            classifier=self.model,
            processor=self.clip_processor,
            labels=self.labels,
            config=self.run_config,
            info=self.info.model_copy(update={"trained_steps": self.state.global_step}),
        )

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        load_weights(self.model, Path(resume_from_checkpoint), labels=self.labels)

    def _load_best_model(self) -> None:
        best = self.state.best_model_checkpoint
        log.info("loading the best checkpoint %s (%s)", best, self.state.best_metric)
        load_weights(self.model, Path(best), labels=self.labels)


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

    Raises:
        ModelFilesError: the directory is incomplete, or for other labels.
    """
    check_complete(directory)
    decoder = load_decoder(directory / DECODER_FILE, labels=labels)
    classifier.decoder.load_state_dict(decoder.state_dict())
    load_token_row(classifier, directory)
    if (directory / ADAPTER_CONFIG).is_file():
        from peft import load_peft_weights, set_peft_model_state_dict

        weights = load_peft_weights(str(directory), device="cpu")
        result = set_peft_model_state_dict(classifier.backbone, weights)
        assert not result.unexpected_keys, result.unexpected_keys
    else:
        model = language_model_of(classifier.backbone)
        saved = type(model).from_pretrained(directory, dtype=model.dtype)
        model.load_state_dict(saved.state_dict())


def accuracy(prediction: Any) -> dict[str, float]:
    """Top-1 accuracy of a Trainer's predictions: logits (clips, classes), labels (clips,)."""
    hits = prediction.predictions.argmax(axis=-1) == prediction.label_ids
    return {"top1_accuracy": float(hits.mean())}


def _peft_options(classifier: ActionClassifier) -> dict[str, bool]:
    is_peft = language_model_of(classifier.backbone) is not classifier.backbone
    return {"save_embedding_layers": False} if is_peft else {}
