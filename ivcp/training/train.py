"""Trains a run's stage on prepared samples, from its start or from where it was interrupted."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ivcp import storage
from ivcp.distributed.disks import Disk, find_disk
from ivcp.distributed.processes import gather_values, joined_processes, on_owner
from ivcp.distributed.rank import is_owner
from ivcp.records import PreparedIndex
from ivcp.settings import RunConfig
from ivcp.stages.registry import check_stage, stage_of
from ivcp.storage.atomic import writable_folder
from ivcp.storage.owner import owned
from ivcp.storage.uris import as_path
from ivcp.tracking import tracked_run
from ivcp.tracking.machine import watched_machine
from ivcp.training.build import build_trainer, inputs_of, training_samples
from ivcp.training.checkpoints.folder import CheckpointError, begin_run, end_run, find_start
from ivcp.training.checkpoints.mirror import CheckpointMirror, run_key
from ivcp.training.checkpoints.output_dir import check_output_dir
from ivcp.training.loop.callbacks import OnBegin
from ivcp.training.parameter_table import log_parameter_table, parameter_table, parameters_in_words
from ivcp.training.result import TrainingResult, run_stage, run_trainer
from ivcp.training.run_record import RUN_RECORD_FILE, changes_since, describe_run
from ivcp.training.seen import clips_to_see

log = logging.getLogger(__name__)


def train_model(
    config: RunConfig,
    *,
    index: PreparedIndex,
    output_dir: Path,
    mirror_uri: str | None = None,
    callbacks: Sequence[Any] = (),
) -> TrainingResult:
    """Trains on the prepared training split and writes a complete adapter directory to `output_dir`.

    Checkpoints are copied to the folder or s3:// prefix `mirror_uri`, and brought from there where `output_dir` lacks
    them; null is a folder for runs with these settings and clips in `checkpoints_uri`, where that is set. A mirror that
    the caller names stays marked as unfinished: the same run goes on from its last checkpoint, whoever lost its result.
    `callbacks` are told by transformers' Trainer what happens.

    Raises:
        FileExistsError: `output_dir` holds an earlier run and neither resuming nor overwriting was asked for, or what
            this project did not write.
        ConfigError: the configuration asks for something this trainer does not do.
        FileNotFoundError: the base model does not exist.
        CheckpointError: the run cannot go on from the checkpoint asked for, or one cannot be written.
        InUseError: another process sends checkpoints to `mirror_uri`.
        PermissionError, ConnectionError: `mirror_uri` cannot be reached.
        TrainingInterrupted: SIGTERM came; the same call again goes on.
    """
    check_stage(config)
    is_ours = mirror_uri is None
    if mirror_uri is None and config.launch.checkpoints_uri is not None:
        mirror_uri = storage.join(config.launch.checkpoints_uri, run_key(config, index, None))
    mirror = CheckpointMirror(mirror_uri) if mirror_uri is not None else None
    with joined_processes(config.train), _owned_mirror(mirror_uri):
        name = on_owner(lambda: _find_start(config, output_dir, mirror))
        start = None if name is None else output_dir / name
        disk = _share(mirror, start, output_dir=output_dir)
        result = _train(
            config, index=index, output_dir=output_dir, start=start, disk=disk, mirror=mirror, callbacks=callbacks
        )
        if is_owner():
            end_run(output_dir)
            if mirror and is_ours:
                mirror.end()
    return result


@contextmanager
def _owned_mirror(uri: str | None) -> Iterator[None]:
    """Inside, no other start of this run sends checkpoints to its mirror."""
    if uri is None or not is_owner():
        yield
        return
    if not storage.is_s3(uri):
        writable_folder(as_path(uri))
    with owned(uri, advice="wait for its end"):
        yield


def _find_start(config: RunConfig, output_dir: Path, mirror: CheckpointMirror | None) -> str | None:
    """The checkpoint to start from: its name in `output_dir`, which is another path on each node, or a whole path."""
    if mirror:
        mirror.restore(config, output_dir)
    check_output_dir(config, output_dir)
    start = find_start(config, output_dir)
    if start is None:
        return None
    return start.name if start.parent.resolve() == output_dir.resolve() else str(start.resolve())


def _begin(config: RunConfig, output_dir: Path, start: Path | None, mirror: CheckpointMirror | None) -> None:
    """Removes what an earlier run left, here and in the mirror: this one has all that it needs to start."""
    begin_run(config, output_dir, start)
    if mirror:
        mirror.begin(output_dir, start)


def _share(mirror: CheckpointMirror | None, start: Path | None, *, output_dir: Path) -> Disk:
    """This process's disk; where there are several, the checkpoint that the run goes on from gets on all of them."""
    disk = find_disk(output_dir)
    if mirror:
        mirror.join(disk, attempt=on_owner(lambda: uuid.uuid4().hex))
    if disk.count > 1 and start is not None and start.parent == output_dir:
        if mirror is None:
            raise CheckpointError(
                f"{output_dir} is another folder on each node, and {start.name} lies on the first one: set "
                "checkpoints_uri, or an output_dir that all nodes see"
            )
        if disk.is_owner and disk.number > 0:
            mirror.fetch(start.name, output_dir)
        gather_values(None)
    return disk


def _train(
    config: RunConfig,
    *,
    index: PreparedIndex,
    output_dir: Path,
    start: Path | None,
    disk: Disk,
    mirror: CheckpointMirror | None,
    callbacks: Sequence[Any],
) -> TrainingResult:
    samples = training_samples(stage_of(config), index)
    with tracked_run(config, step="training") as run, watched_machine(run):
        trainer = build_trainer(
            config,
            index=index,
            samples=samples,
            output_dir=output_dir,
            track=run.log_metrics,
            seen=clips_to_see(config, index),
            disk=disk,
            mirror=mirror,
        )
        for callback in callbacks:
            trainer.add_callback(callback)
        table = parameter_table(trainer.model, trainer.stage)
        log_parameter_table(table)
        run.log_data_set(index, name=", ".join(config.data.dataset), context="training")
        run.describe("What trains", parameters_in_words(table))

        def begin() -> None:
            record = describe_run(config, index, num_processes=trainer.args.world_size)
            if start is not None and is_owner() and (changes := changes_since(start, record)):
                log.warning("this run is another than the one of %s: %s", start, changes)
            on_owner(lambda: _begin(config, output_dir, start, mirror))
            if is_owner():
                record.write(output_dir / RUN_RECORD_FILE)
            run.set_tags(record.tags)

        if trainer.stage.sees_samples_once:
            begin()
            result = run_stage(trainer, inputs_of(trainer, index))
        else:
            trainer.add_callback(OnBegin(begin))
            result = run_trainer(trainer, resume_from=str(start) if start else None)
        for file in (output_dir / RUN_RECORD_FILE, *output_dir.glob("*.png"), *output_dir.glob("head_sweep.*")):
            run.log_artifact(file, folder="training")
        run.describe("Training", result.summary)
    return result
