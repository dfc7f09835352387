"""The run's settings in transformers' words."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import torch

from ivcp.distributed.deepspeed_files import deepspeed_settings
from ivcp.distributed.quantized import check_quantized_sharding
from ivcp.distributed.sharding import fsdp_settings
from ivcp.settings import ConfigError, RunConfig, TrainConfig
from ivcp.settings.sections.section import Section
from ivcp.stages.protocol import Stage
from ivcp.training.packages import check_packages

log = logging.getLogger(__name__)

_OURS = {
    "do_train",
    "do_eval",
    "warmup_ratio",
    "resume_from_checkpoint",
    "overwrite_output_dir",
    "plot_loss",
    "vision_tower_learning_rate",
    "projector_learning_rate",
    "action_decoder_learning_rate",
    "early_stopping_steps",
    "deepspeed",
    "fsdp",
    "save_total_limit",
}
"""Settings that transformers' arguments do not have, or that this project acts on itself."""


def training_arguments(stage: Stage, *, output_dir: Path, has_val: bool) -> Any:
    """transformers' TrainingArguments for a run that writes into `output_dir`.

    Raises:
        ConfigError: a package is not installed, or the stage does not have the metric `metric_for_best_model`.

    mlflow is left out of `report_to`: the run's own tracking logs there, since transformers' callback may end a
    run that somebody else opened.
    """
    from transformers import TrainingArguments

    config, train, best = stage.config, stage.config.train, metric_for_best_model(stage)
    check_packages(config)
    check_quantized_sharding(config)
    arguments = TrainingArguments(
        **train.model_dump(exclude=_OURS)
        | {
            "output_dir": str(output_dir),
            "warmup_steps": train.warmup_steps or train.warmup_ratio,
            "eval_strategy": eval_strategy(train, has_val=has_val),
            "activation_checkpointing": not config.model.disable_gradient_checkpointing and trains_backbone(stage),
            "report_to": [name for name in train.report_to if name != "mlflow"] or "none",
            "logging_nan_inf_filter": False,  # it shows a loss that is not finite as 0: `FiniteSteps` stops instead
            "label_names": list(stage.target_names),
            "prediction_loss_only": not stage.target_names,
            "remove_unused_columns": False,
            "use_cpu": not torch.cuda.is_available(),
            "dataloader_pin_memory": torch.cuda.is_available(),
            "disable_tqdm": not sys.stderr.isatty(),
            "metric_for_best_model": f"eval_{best}" if has_val else None,
            "restore_callback_states_from_checkpoint": True,  # how long early stopping has waited
            **_distribution(config),
            "greater_is_better": best != "loss" if has_val else None,
        }
    )
    # transformers adds it where Kubeflow Trainer asks for reports: `TellJobStatus` sends them, and waits for none.
    arguments.report_to = [name for name in arguments.report_to if name != "kubeflow"]
    use_one_device(arguments)
    return arguments


def use_one_device(arguments: Any) -> None:
    """Keeps transformers from training on all GPUs that this process sees, in threads of one process (DataParallel).

    The copies of a module there share its hooks, which put in the action token's row.
    """
    if arguments.n_gpu > 1:
        log.warning(
            "%d GPUs are visible, and this process trains on one of them: a process is needed for each. `ivcp train` "
            "and torchrun start them; in a pipeline set train_processes_per_node: %d",
            *(arguments.n_gpu, arguments.n_gpu),
        )
        arguments._n_gpu = 1


def _distribution(config: RunConfig) -> dict[str, Any]:
    train, method = config.train, config.method
    opens_vision = not (method.freeze_vision_tower and method.freeze_multi_modal_projector)
    return {
        "deepspeed": deepspeed_settings(train.deepspeed) if train.deepspeed else None,
        "fsdp": True if train.fsdp else None,
        "fsdp_config": fsdp_settings(train) if train.fsdp else None,
        # A vision tower may have weights that videos do not use (LLaVA leaves its last layer out), and so may adapters
        # in it; a language model has none.
        "ddp_find_unused_parameters": opens_vision,
    }


def trains_backbone(stage: Stage) -> bool:
    """Whether gradients pass through the backbone: a part of it trains, or something in front of it does."""
    method = stage.config.method
    is_frozen = method.finetuning_type == "freeze" and method.freeze_trainable_layers == 0
    has_open_tower = not (method.freeze_vision_tower and method.freeze_multi_modal_projector)
    return not is_frozen or has_open_tower or stage.trains_backbone


def metric_for_best_model(stage: Stage) -> str:
    """The metric by which checkpoints are compared: as set; the loss in place of a default that the stage lacks.

    Raises:
        ConfigError: the stage does not measure what is set.
    """
    wanted, known = stage.config.train.metric_for_best_model, (*stage.metric_names, "loss")
    if wanted in known:
        return wanted
    if wanted != TrainConfig().metric_for_best_model:
        raise ConfigError(
            f"metric_for_best_model = {wanted}: stage {stage.config.method.stage} has {' and '.join(known)}"
        )
    return "loss"


def eval_strategy(train: TrainConfig, *, has_val: bool) -> str:
    """When validation runs: as set, else every epoch where there is a validation split."""
    if not has_val:
        return "no"
    return train.eval_strategy or (train.save_strategy if train.load_best_model_at_end else "epoch")


def check_stage_settings(stage: Stage) -> None:
    """Checks what the stage asks of its settings, and that none speaks of classes where samples have none.

    What the stage does not read is named in the log.

    Raises:
        ConfigError: they cannot be used.
    """
    stage.check_settings()
    config, usual = stage.config, RunConfig()
    of_classes = _changed(config.loss, usual.loss)
    if config.augmentation.augment_no_flip_labels:
        of_classes.append("augment_no_flip_labels")
    if not _LABEL_COLUMNS & {column.name for column in stage.columns} and of_classes:
        raise ConfigError(
            f"{', '.join(of_classes)}: the samples of stage {config.method.stage} have no class; leave it out"
        )
    if stage.own_settings is None:
        return
    changed = [*_changed(config.action_cls, usual.action_cls), *_changed(config.language, usual.language)]
    if stage.rows == "labels":
        changed += [name for name in _changed(config.video, usual.video) if name.startswith("image_")]
    if ignored := [name for name in changed if name not in stage.own_settings]:
        log.warning("%s: stage %s does not read that", ", ".join(ignored), config.method.stage)


_LABEL_COLUMNS = frozenset({"label", "labels", "value"})
"""Of stages whose samples have a class, or what stands in its place."""


def _changed(section: Section, usual: Section) -> list[str]:
    """The settings of a section that are not at their defaults."""
    return [name for name in type(section).model_fields if getattr(section, name) != getattr(usual, name)]
