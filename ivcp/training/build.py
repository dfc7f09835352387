"""The trainer of a run, from its settings and its prepared samples."""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ivcp.data.prepared.batches import token_lengths
from ivcp.data.prepared.reader import PreparedSamples
from ivcp.data.prepared.sample import Sample
from ivcp.data.seen_clips import SeenClips
from ivcp.distributed.disks import Disk
from ivcp.feature_cache.vision import VisionCache
from ivcp.inference.compute import Compute
from ivcp.models.acceleration import accelerate_language_model
from ivcp.models.backbone import BackboneModule, language_model_of
from ivcp.models.fingerprint import base_weights
from ivcp.models.positions import RopePositions
from ivcp.models.processor import Processor
from ivcp.models.source import local_model
from ivcp.records import Message, PreparedIndex, Split
from ivcp.settings import RunConfig
from ivcp.stages.directory import load_weights, other_base
from ivcp.stages.model_info import ModelInfo, is_model_directory
from ivcp.stages.protocol import Stage, TrainingInputs
from ivcp.stages.registry import stage_of
from ivcp.training.arguments import check_stage_settings, training_arguments
from ivcp.training.augmentation import AugmentedSamples
from ivcp.training.checkpoints.mirror import CheckpointMirror
from ivcp.training.checkpoints.size import planned_steps
from ivcp.training.loop.callbacks import LogLines, StopWhenReplaced
from ivcp.training.loop.job_status import TellJobStatus
from ivcp.training.loop.trainer import StageTrainer
from ivcp.training.towers import run_towers_alike

log = logging.getLogger(__name__)

_LOOKED_AT = 32
"""Training clips, to know how long one is."""
Track = Callable[[dict[str, float], int], None]


def training_samples(stage: Stage, index: PreparedIndex) -> dict[Split, Any]:
    """The prepared samples of each split that has some; those of training change where augmentation is set.

    Raises:
        ShardError: shards are missing or damaged.
        AugmentationError: augmentation names a class that the data do not have.
        ConfigError: the settings ask for what the data do not have.
    """
    stage.check_data(index)
    config = stage.config
    check_stage_settings(stage)
    jitter = config.augmentation.augment_temporal_jitter
    samples: dict[Split, Any] = {
        split: PreparedSamples(
            index, split, keep_candidates=jitter, verify_checksums=config.data.prepared_verify_checksums
        )
        for split, count in index.num_clips.items()
        if count
    }
    if config.augmentation.changes_frames:
        samples["train"] = AugmentedSamples(
            samples["train"], config.augmentation, labels=index.labels, seed=config.train.seed
        )
    return samples


def build_trainer(
    config: RunConfig,
    *,
    index: PreparedIndex,
    samples: Mapping[Split, Any],
    output_dir: Path,
    track: Track = lambda metrics, step: None,
    seen: SeenClips | None = None,
    disk: Disk | None = None,
    mirror: CheckpointMirror | None = None,
) -> StageTrainer:
    """The trainer of a run: `samples` maps splits to map-style data sets of `Sample`.

    `seen` is what its model will have seen; null says in its directory that this is not known.

    Raises:
        ConfigError: the settings ask for something that cannot be done here.
        FileNotFoundError: the base model does not exist.
        ModelFilesError: the adapter to start from does not fit the data or the settings.
    """
    from transformers import PrinterCallback, set_seed

    stage = stage_of(config)
    # Before the model: DeepSpeed's ZeRO-3 shards the weights while they are loaded.
    arguments = training_arguments(stage, output_dir=output_dir, has_val="val" in samples)
    set_seed(config.train.seed)
    processor = _processor_of(stage, index)
    module = stage.build(index, processor)
    _warn_of_other_base(config)
    if config.method.adapter_name_or_path:
        load_weights(stage, module, Path(local_model(config.method.adapter_name_or_path)), starts=True)
    module.keep_start()
    clip_seconds = _clip_seconds(samples["train"])
    cache = VisionCache(
        config,
        index,
        module,
        processor,
        Compute.of(arguments),
        changes_media=stage.changes_media,
        sees_samples_once=stage.sees_samples_once,
    )
    model = language_model_of(module.backbone)
    samples = run_towers_alike(config, index, model, processor, live=samples, kept=cache.replace(samples))
    accelerate_language_model(
        model, config.speed, lengths=token_lengths(samples["train"], prompts_only=not stage.reads_answers)
    )
    positions = RopePositions.of(model)
    train_collate, eval_collate = (
        stage.collator(module, processor, positions=positions, training=training) for training in (True, False)
    )
    inputs = stage.computed_once(
        _inputs(arguments, module, processor, index, samples["train"], samples.get("val"), eval_collate)
    )
    trainer = StageTrainer(
        module,
        stage=stage,
        arguments=arguments,
        processor=processor,
        info=ModelInfo(
            trained_steps=0,
            prompt=_served_prompt(stage, index),
            data_fingerprint=index.data_fingerprint,
            prepared_fingerprint=index.fingerprint,
            base=base_weights(config.model),
            clip_seconds=clip_seconds,
        ),
        seen=seen or SeenClips(is_complete=False),
        train_samples=inputs.train,
        val_samples=inputs.val,
        train_collate=train_collate,
        eval_collate=eval_collate,
        callbacks=[StopWhenReplaced(), LogLines(track), TellJobStatus(), *_early_stopping(config)],
        disk=disk,
        mirror=mirror,
    )
    trainer.remove_callback(PrinterCallback)
    _warn_of_warmup(config, _steps_of(trainer))
    return trainer


def _processor_of(stage: Stage, index: PreparedIndex) -> Processor:
    """The base model's processor, with the frames of the prepared clips."""
    model = stage.config.model
    return Processor.from_pretrained(
        model.required_name,
        video=index.video,
        special_tokens=stage.special_tokens,
        revision=model.model_revision,
        cache_dir=model.cache_dir,
        trust_remote_code=model.trust_remote_code,
    )


def _clip_seconds(samples: Sequence[Sample]) -> float | None:
    """What a clip lasts, in the median of some."""
    places = np.unique(np.linspace(0, len(samples) - 1, num=min(_LOOKED_AT, len(samples)), dtype=int))
    media = [medium for place in places for medium in samples[int(place)].media if medium.total_frames]
    lengths = [medium.total_frames / medium.source_fps for medium in media if medium.kind == "video"]
    return round(statistics.median(lengths), 2) if lengths else None


def _warn_of_other_base(config: RunConfig) -> None:
    """Says that a decoder to start from knows other states: training can still make it fit."""
    if config.action_cls.action_decoder_path is None:
        return
    path = Path(config.action_cls.action_decoder_path)
    directory = path if path.is_dir() else path.parent
    if is_model_directory(directory) and (problem := other_base(directory, config.model)):
        log.warning("action_decoder_path: %s: the decoder starts from states that it does not know", problem)


def _served_prompt(stage: Stage, index: PreparedIndex) -> tuple[Message, ...]:
    """What the model will be asked with when nobody says anything else."""
    asked = stage.config.serving.served_prompt
    if asked is None:
        return index.prompt
    return stage.ask(asked, system=[message for message in index.prompt if message.role == "system"])


def _steps_of(trainer: StageTrainer) -> int:
    """Optimizer steps of all epochs."""
    config, batches = trainer.stage.config, trainer.batches
    if batches is None:
        return planned_steps(config, len(trainer.train_dataset), trainer.args.world_size)
    per_epoch = len(batches) // config.train.gradient_accumulation_steps
    return math.ceil(per_epoch * config.train.num_train_epochs)


def _warn_of_warmup(config: RunConfig, num_steps: int) -> None:
    """Says that the learning rate never reaches its peak; with `max_steps` that was said before."""
    train = config.train
    if train.max_steps <= 0 and train.warmup_steps >= num_steps:
        log.warning(
            "warmup_steps = %d, and the run has %d steps: the learning rate never reaches its peak; set "
            "warmup_ratio: 0.1 instead, or train longer",
            *(train.warmup_steps, num_steps),
        )


def inputs_of(trainer: StageTrainer, index: PreparedIndex) -> TrainingInputs:
    """What a stage that trains in a way of its own is given in the trainer's place."""
    return _inputs(
        *(trainer.args, trainer.model, trainer.sample_processor, index),
        *(trainer.train_dataset, trainer.eval_dataset, trainer.eval_collate),
    )


def _inputs(
    arguments: Any,
    module: BackboneModule,
    processor: Processor,
    index: PreparedIndex,
    train: Any,
    val: Any,
    collate: Any,
) -> TrainingInputs:
    return TrainingInputs(
        module=module,
        processor=processor,
        index=index,
        train=train,
        val=val,
        collate=collate,
        compute=Compute.of(arguments),
        eval_batch_size=arguments.eval_batch_size,
        num_workers=arguments.dataloader_num_workers,
        output_dir=Path(arguments.output_dir),
    )


def _early_stopping(config: RunConfig) -> list[Any]:
    from transformers import EarlyStoppingCallback

    patience = config.train.early_stopping_steps
    return [EarlyStoppingCallback(early_stopping_patience=patience)] if patience else []
