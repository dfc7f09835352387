"""Trains an action classifier on prepared clips."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ivcp import storage
from ivcp.data.prepared.reader import PreparedClips
from ivcp.distributed.disks import Disk, find_disk
from ivcp.distributed.launched import gathered, is_main_process, joined_processes, on_main_process
from ivcp.distributed.processes import Processes
from ivcp.feature_cache.vision import VisionCache
from ivcp.models.acceleration import accelerate_language_model
from ivcp.models.processor import ClipProcessor
from ivcp.records import PreparedIndex, Record, Split
from ivcp.settings import ConfigError, RunConfig, check_trainable
from ivcp.stages.action_cls.build import base_model_name, build_classifier
from ivcp.stages.action_cls.files import ClassifierInfo
from ivcp.stages.action_cls.head_sweep import sweep_heads
from ivcp.tracking import tracked_run
from ivcp.training.arguments import training_arguments
from ivcp.training.augmentation import AugmentedClips
from ivcp.training.batches import token_lengths
from ivcp.training.callbacks import LogLines
from ivcp.training.checkpoints.folder import CheckpointError, begin_run, end_run, is_earlier_run, is_unfinished
from ivcp.training.checkpoints.mirror import CheckpointMirror, run_key
from ivcp.training.curves import draw_curves
from ivcp.training.parameter_table import log_parameter_table, parameter_table
from ivcp.training.run_record import RUN_RECORD_FILE, describe_run
from ivcp.training.trainer import ActionTrainer

log = logging.getLogger(__name__)

TRAINING_RESULT_FILE = "training_result.json"
CURVES_FILE = "training_curves.png"


class TrainingResult(Record):
    """What training did: `training_result.json` in the adapter directory."""

    steps: int
    epochs: float
    train_clips: int
    val_clips: int
    train_loss: float
    """Mean over the steps of this run."""
    val_top1_accuracy: float | None
    """Of the model that was kept; null without a validation split."""
    seconds: float

    @property
    def summary(self) -> str:
        """The result in a few words."""
        measured = "" if self.val_top1_accuracy is None else f", validation top-1 {self.val_top1_accuracy:.3f}"
        return f"{self.steps} steps, mean loss {self.train_loss:.3f}{measured}"


def train_classifier(
    config: RunConfig, *, index: PreparedIndex, output_dir: Path, mirror_uri: str | None = None
) -> TrainingResult:
    """Trains on the prepared training split and writes a complete adapter directory to `output_dir`.

    Checkpoints are copied to the folder or s3:// prefix `mirror_uri`, and brought from there where `output_dir` lacks
    them; null is a folder for runs with these settings and clips in `checkpoints_uri`, where that is set. A mirror that
    the caller names stays marked as unfinished: the same run goes on from its last checkpoint, whoever lost its result.

    Raises:
        FileExistsError: `output_dir` holds an earlier run and neither resuming nor overwriting was asked for.
        ConfigError: the configuration asks for something this trainer does not do.
        FileNotFoundError: the base model does not exist.
        CheckpointError: the run cannot go on from the checkpoint asked for, or one cannot be written.
        PermissionError, ConnectionError: `mirror_uri` cannot be reached.
        TrainingInterrupted: SIGTERM came; the same call again goes on.
    """
    check_trainable(config)
    is_ours = mirror_uri is None
    if mirror_uri is None and config.launch.checkpoints_uri is not None:
        mirror_uri = storage.join(config.launch.checkpoints_uri, run_key(config, index, None))
    mirror = CheckpointMirror(mirror_uri) if mirror_uri is not None else None
    with joined_processes(config.train):
        name = on_main_process(lambda: _begin(config, output_dir, mirror))
        start = None if name is None else output_dir / name
        disk = _share(mirror, start, output_dir=output_dir)
        result = _train(config, index=index, output_dir=output_dir, start=start, disk=disk, mirror=mirror)
        if is_main_process():
            end_run(output_dir)
            if mirror and is_ours:
                mirror.end()
    return result


def _begin(config: RunConfig, output_dir: Path, mirror: CheckpointMirror | None) -> str | None:
    """The checkpoint to start from: its name in `output_dir`, which is another path on each node, or a whole path."""
    if mirror:
        mirror.restore(config, output_dir)
    check_output_dir(config, output_dir)
    start = begin_run(config, output_dir)
    if mirror:
        mirror.begin(output_dir, start)
    if start is None:
        return None
    return start.name if start.parent.resolve() == output_dir.resolve() else str(start.resolve())


def _share(mirror: CheckpointMirror | None, start: Path | None, *, output_dir: Path) -> Disk:
    """This process's disk; where there are several, the checkpoint that the run goes on from gets on all of them."""
    disk = find_disk(output_dir)
    if mirror:
        mirror.join(disk, attempt=on_main_process(lambda: uuid.uuid4().hex))
    if disk.count > 1 and start is not None and start.parent == output_dir:
        if mirror is None:
            raise CheckpointError(
                f"{output_dir} is another folder on each node, and {start.name} lies on the first one: set "
                "checkpoints_uri, or an output_dir that all nodes see"
            )
        if disk.is_keeper and disk.number > 0:
            mirror.fetch(start.name, output_dir)
        gathered(None)
    return disk


def _train(
    config: RunConfig,
    *,
    index: PreparedIndex,
    output_dir: Path,
    start: Path | None,
    disk: Disk,
    mirror: CheckpointMirror | None,
) -> TrainingResult:
    clips = training_clips(config, index)
    with tracked_run(config, step="training") as run:
        trainer = build_trainer(
            config,
            index=index,
            clips=clips,
            output_dir=output_dir,
            track=run.log_metrics,
            disk=disk,
            mirror=mirror,
        )
        table = parameter_table(trainer.model)
        log_parameter_table(table)
        run.log_metrics({f"parameters/{row.name}": row.total for row in table})
        run.log_metrics({f"trainable_parameters/{row.name}": row.trainable for row in table})
        record = describe_run(index, num_processes=trainer.args.world_size)
        if is_main_process():
            record.write(output_dir / RUN_RECORD_FILE)
        run.set_tags(record.tags)
        if config.action_cls.head_sweep:
            result = run_head_sweep(trainer, index)
        else:
            result = run_trainer(trainer, resume_from=str(start) if start else None)
        for file in (output_dir / RUN_RECORD_FILE, *output_dir.glob("*.png"), *output_dir.glob("head_sweep.*")):
            run.log_artifact(file, folder="training")
    return result


def training_clips(config: RunConfig, index: PreparedIndex) -> dict[Split, Any]:
    """The prepared clips of each split that has some; those of training change where augmentation is set.

    Raises:
        ShardError: shards are missing or damaged.
        AugmentationError: augmentation names a class that the data do not have.
        ConfigError: the loss on answers is asked for, and there are none.
    """
    if config.action_cls.action_cls_token_loss_weight and not index.num_answers:
        raise ConfigError(
            f"action_cls_token_loss_weight = {config.action_cls.action_cls_token_loss_weight}: no conversation has an "
            f"answer behind {index.action_token}; set it to 0, or add the assistant's turns"
        )
    jitter = config.augmentation.augment_temporal_jitter
    clips: dict[Split, Any] = {
        split: PreparedClips(
            index, split, keep_candidates=jitter, verify_checksums=config.data.prepared_verify_checksums
        )
        for split, count in index.num_clips.items()
        if count
    }
    if config.augmentation.changes_frames:
        clips["train"] = AugmentedClips(
            clips["train"], config.augmentation, labels=index.labels, seed=config.train.seed
        )
    return clips


def build_trainer(
    config: RunConfig,
    *,
    index: PreparedIndex,
    clips: Mapping[Split, Any],
    output_dir: Path,
    track: Any = lambda metrics, step: None,
    disk: Disk | None = None,
    mirror: CheckpointMirror | None = None,
) -> ActionTrainer:
    """The trainer of a run: `clips` maps splits to map-style datasets of `PreparedClip`."""
    from transformers import PrinterCallback, set_seed

    # Before the model: DeepSpeed's ZeRO-3 spreads the weights while they are loaded.
    arguments = training_arguments(config, output_dir=output_dir, has_val="val" in clips)
    set_seed(config.train.seed)
    processor = ClipProcessor.from_pretrained(
        base_model_name(config),
        video=index.video,
        action_token=index.action_token,
        revision=config.model.model_revision,
        cache_dir=config.model.cache_dir,
        trust_remote_code=config.model.trust_remote_code,
    )
    classifier = build_classifier(config, index=index, processor=processor)
    clips = VisionCache(config, index, classifier, processor, Processes.of(arguments)).replace(clips)
    accelerate_language_model(classifier, config.speed, lengths=token_lengths(clips["train"]))
    trainer = ActionTrainer(
        classifier,
        arguments=arguments,
        processor=processor,
        labels=index.labels,
        config=config,
        info=ClassifierInfo(
            trained_steps=0,
            prompt=index.prompt,
            data_fingerprint=index.data_fingerprint,
            prepared_fingerprint=index.fingerprint,
        ),
        train_clips=clips["train"],
        val_clips=clips.get("val"),
        callbacks=[LogLines(track), *_early_stopping(config)],
        disk=disk,
        mirror=mirror,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _early_stopping(config: RunConfig) -> list[Any]:
    from transformers import EarlyStoppingCallback

    patience = config.train.early_stopping_steps
    return [EarlyStoppingCallback(early_stopping_patience=patience)] if patience else []


def run_trainer(trainer: ActionTrainer, *, resume_from: str | bool | None = None) -> TrainingResult:
    """Trains, measures the kept model on the validation split, and writes the adapter directory."""
    started = time.monotonic()
    output = trainer.train(resume_from_checkpoint=resume_from)
    measured = _measure_kept_model(trainer)
    result = _write_results(trainer, started, train_loss=output.training_loss, measured=measured)
    if trainer.run_config.train.plot_loss and is_main_process():
        draw_curves(trainer.state.log_history, Path(trainer.args.output_dir) / CURVES_FILE)
    return result


def run_head_sweep(trainer: ActionTrainer, index: PreparedIndex) -> TrainingResult:
    """Trains many decoders at once on the frozen backbone's states, and writes the adapter directory of the best.

    Raises:
        ConfigError: there is no validation split.
    """
    started = time.monotonic()
    best = sweep_heads(trainer, index).best
    measured = {"eval_top1_accuracy": best.val_top1_accuracy}
    return _write_results(trainer, started, train_loss=best.train_loss, measured=measured)


def _write_results(
    trainer: ActionTrainer, started: float, *, train_loss: float, measured: Mapping[str, float]
) -> TrainingResult:
    trainer.save_model()
    trainer.save_state()
    result = TrainingResult(
        steps=trainer.state.global_step,
        epochs=trainer.state.epoch or 0.0,
        train_clips=len(trainer.train_dataset),
        val_clips=len(trainer.eval_dataset) if trainer.eval_dataset is not None else 0,
        train_loss=train_loss,
        val_top1_accuracy=measured.get("eval_top1_accuracy"),
        seconds=time.monotonic() - started,
    )
    if not is_main_process():
        return result
    result.write(Path(trainer.args.output_dir) / TRAINING_RESULT_FILE)
    return result


def _measure_kept_model(trainer: ActionTrainer) -> dict[str, float]:
    """Metrics of the model as it is now: the last validation's, where that came behind the last step."""
    if trainer.eval_dataset is None:
        return {}
    validations = [row for row in trainer.state.log_history if "eval_loss" in row]
    is_last = bool(validations) and validations[-1]["step"] == trainer.state.global_step
    if is_last and not trainer.args.load_best_model_at_end:
        last: dict[str, float] = validations[-1]
        return last
    return trainer.evaluate()


def check_output_dir(config: RunConfig, output_dir: Path) -> None:
    """Makes `output_dir`, and refuses one that holds an earlier run.

    One whose run, with the same settings, did not come to its end is that run's.

    Raises:
        FileExistsError: it is not empty, and neither `overwrite_output_dir` nor `resume_from_checkpoint` is set.
        PermissionError: it cannot be written.
    """
    train = config.train
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        (output_dir / ".writable").touch()
        (output_dir / ".writable").unlink()
    except OSError as error:
        raise PermissionError(f"output_dir: cannot write to {output_dir} ({error.strerror}): choose another") from error
    earlier = [entry for entry in output_dir.iterdir() if is_earlier_run(entry)]
    goes_on = train.resume_from_checkpoint or is_unfinished(config, output_dir)
    if earlier and not (train.overwrite_output_dir or goes_on):
        raise FileExistsError(
            f"output_dir: {output_dir} is not empty; set overwrite_output_dir: true to start again in it, "
            "or resume_from_checkpoint: true to continue"
        )
