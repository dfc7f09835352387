"""Checkpoints on disk: which are complete, which one a run resumes from, which are deleted.

A checkpoint is a folder `checkpoint-<step>` in `output_dir`. Its last file is `checkpoint.json`, written when all
others are on the disk: a folder without it was left half-written by a run that died, is never read, and is removed
by the next run. Folders of that name which others wrote are never touched. `unfinished_run.json` lies in `output_dir`
from a run's start to its end; as long as it is there, the same command resumes that run.
"""

from __future__ import annotations

import json
import logging
import shutil
import zipfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch.distributed.checkpoint.api import CheckpointException

from ivcp.distributed.disks import Disk
from ivcp.distributed.processes import wait_for_all
from ivcp.distributed.sharding import Sharding
from ivcp.records import (
    CHECKPOINT_FILE,
    CHECKPOINT_FOLDER,
    CLIPS_DIR,
    RUN_CONFIG_FILE,
    UNFINISHED_FILE,
    VersionedRecord,
)
from ivcp.settings import LaunchConfig, RunConfig, read_model_config
from ivcp.stages.model_info import is_model_directory
from ivcp.storage.atomic import flush_to_disk, write_whole
from ivcp.storage.claims import OWNER_FILE
from ivcp.training.checkpoints.earlier_result import remove_result

log = logging.getLogger(__name__)

BEGUN_FILE = ".checkpoint"
"""First file of a checkpoint, there until the last one is: what has neither was not written by this project."""


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written, or that a run cannot resume from; the message says what to do."""


class CheckpointInfo(VersionedRecord):
    """`checkpoint.json`: that a checkpoint is complete, and which runs can resume from it."""

    step: int
    sharding: Sharding
    num_processes: int
    resumable: bool
    """Whether the optimizer's state is there (`save_only_model` leaves it out)."""


def whole_checkpoints(output_dir: Path) -> list[Path]:
    """The checkpoints that were written to their end, the earliest first."""
    found = (path for path in output_dir.glob("checkpoint-*") if (path / CHECKPOINT_FILE).is_file())
    return sorted(found, key=_step)


@contextmanager
def writing_checkpoint(directory: Path, info: CheckpointInfo, disk: Disk | None = None) -> Iterator[None]:
    """Inside, all processes write their files into `directory`; afterwards it counts as a checkpoint.

    `disk` is this process's where the processes have several; null is one that all of them see.

    Raises:
        CheckpointError: it could not be written; what there was of it is removed.
    """
    is_owner = (disk or Disk.shared()).is_owner
    if is_owner:
        clear_checkpoint(directory)
        directory.mkdir(parents=True)
        (directory / BEGUN_FILE).touch()
    wait_for_all()
    is_whole = False
    try:
        yield
        wait_for_all()
        if is_owner:
            _flush_to_disk(directory)
            info.write(directory / CHECKPOINT_FILE)
            flush_to_disk(directory / CHECKPOINT_FILE)
            (directory / BEGUN_FILE).unlink()
            flush_to_disk(directory)
        is_whole = True
    # What plain files, safetensors, torch.distributed.checkpoint and torch.save raise on a full disk.
    except (OSError, SafetensorError, CheckpointException) as error:
        raise CheckpointError(_explain_failure(directory, error)) from error
    except RuntimeError as error:
        if "inline_container" not in str(error):  # for example that another process ended
            raise
        raise CheckpointError(_explain_failure(directory, error)) from error
    finally:
        if not is_whole:
            remove_checkpoint(directory)
    wait_for_all()


def clear_checkpoint(directory: Path) -> None:
    """Removes what an earlier run left in the place of a checkpoint.

    Raises:
        CheckpointError: there is one that this project did not write.
    """
    if directory.exists() and not is_own_checkpoint(directory):
        raise CheckpointError(
            f"{directory} is in the way: it is no checkpoint of this project, and stays as it is. Move it away, or "
            "name another output_dir"
        )
    remove_checkpoint(directory)


def is_own_checkpoint(directory: Path) -> bool:
    """Whether this project wrote a folder, wholly or in part; earlier versions had no `BEGUN_FILE`."""
    names = (CHECKPOINT_FILE, BEGUN_FILE)
    return is_model_directory(directory) or any((directory / name).is_file() for name in names)


def foreign_checkpoints(output_dir: Path) -> list[str]:
    """Names of what is called like a checkpoint in `output_dir`, and is none of this project."""
    found = (path for path in output_dir.iterdir() if CHECKPOINT_FOLDER.fullmatch(path.name))
    return sorted(path.name for path in found if not is_own_checkpoint(path))


def remove_checkpoint(directory: Path) -> None:
    """Deletes a checkpoint. If the deletion is interrupted, what is left counts as half-written."""
    if not directory.is_dir():
        return
    (directory / BEGUN_FILE).touch()
    (directory / CHECKPOINT_FILE).unlink(missing_ok=True)
    for path in directory.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != BEGUN_FILE:
            path.unlink()
    shutil.rmtree(directory, ignore_errors=True)


def delete_old_checkpoints(
    output_dir: Path, *, limit: int | None, best: Path | None, in_use: Collection[str] = ()
) -> None:
    """Deletes the oldest complete checkpoints beyond `limit`, but never the best, the last one, nor those `in_use`."""
    present = [path.name for path in whole_checkpoints(output_dir)]
    for name in surplus_checkpoints(present, limit=limit, best=best.name if best else None):
        if name not in in_use:
            remove_checkpoint(output_dir / name)


def surplus_checkpoints(present: Sequence[str], *, limit: int | None, best: str | None) -> list[str]:
    """Names of the oldest of `present`, which are in order, beyond `limit`; the best and the last one never are."""
    if limit is None or not present:
        return []
    kept = {present[-1], best} & set(present)
    surplus = max(0, len(present) - max(limit, len(kept)))
    return [name for name in present if name not in kept][:surplus]


def is_unfinished(config: RunConfig, output_dir: Path) -> bool:
    """Whether `output_dir` holds a run with these settings that did not come to its end."""
    if config.train.resume_from_checkpoint is False:
        return False
    try:
        return is_same_run(config, (output_dir / UNFINISHED_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False


def is_same_run(config: RunConfig, started: str) -> bool:
    """Whether `started`, the content of an `unfinished_run.json`, describes a run with these settings."""
    try:
        return bool(json.loads(started) == same_run(config))
    except json.JSONDecodeError:
        return False


def begin_run(config: RunConfig, output_dir: Path, start: Path | None) -> None:
    """Removes from `output_dir` what an earlier run left, but for the checkpoint `start` and those before it, and marks
    the run as unfinished.

    That is its result, half-written checkpoints, and checkpoints of a run that was given up. Called by the first
    process alone, when all that can fail before the first step has not failed.
    """
    kept = _step(start) if start is not None and start.parent.resolve() == output_dir.resolve() else -1
    if kept < 0:  # interrupted from here on, what is left of the other run is not taken for a part of it
        (output_dir / UNFINISHED_FILE).unlink(missing_ok=True)
    for path in sorted(output_dir.glob("checkpoint-*"), key=_step):
        if not CHECKPOINT_FOLDER.fullmatch(path.name) or not is_own_checkpoint(path):
            continue
        if not (path / CHECKPOINT_FILE).is_file():
            log.warning("removing the half-written checkpoint %s", path)
            remove_checkpoint(path)
        elif _step(path) > kept:
            log.info("removing %s, of an earlier run", path)
            remove_checkpoint(path)
    remove_result(output_dir)
    write_whole(output_dir / UNFINISHED_FILE, json.dumps(same_run(config), indent=2) + "\n")


def end_run(output_dir: Path) -> None:
    """Marks the run as finished."""
    (output_dir / UNFINISHED_FILE).unlink(missing_ok=True)


def is_earlier_run(entry: Path) -> bool:
    """Whether an entry of `output_dir` is the result of training, which a new run would mix with its own."""
    return entry.name not in {CLIPS_DIR, UNFINISHED_FILE, OWNER_FILE}


def check_resumable(directory: Path, *, sharding: Sharding, num_processes: int) -> None:
    """Checks that a run that is sharded in this way can resume from a checkpoint.

    Raises:
        CheckpointError: says what does not fit and what to do.
    """
    info = _read_info(directory)
    instead = f"or start a new run from its weights with adapter_name_or_path: {directory}"
    if not info.resumable:
        raise CheckpointError(
            f"{directory} holds weights only (save_only_model), nothing that training could resume from: {instead[3:]}"
        )
    if info.sharding != sharding:
        raise CheckpointError(
            f"{directory} was written by a run with {_described(info.sharding)}, this one has "
            f"{_described(sharding)}: go on as that run was started, {instead}"
        )
    if damage := _damage(directory, sharding):
        others = [path for path in whole_checkpoints(directory.parent) if path.resolve() != directory.resolve()]
        earlier = f"go on from an earlier one with resume_from_checkpoint: {others[-1]}, {instead}" if others else ""
        raise CheckpointError(f"{directory} is damaged: {damage}: {earlier or instead[3:]}")
    if sharding.startswith("zero") and info.num_processes != num_processes:
        raise CheckpointError(
            f"{directory} was written by {info.num_processes} processes, this run has {num_processes}: DeepSpeed "
            f"shards the optimizer's state by the number of processes; start {info.num_processes} processes, {instead}"
        )


def _damage(directory: Path, sharding: Sharding) -> str | None:
    """What is missing or cut off of a checkpoint's state; its weights are checked when they are read."""
    try:
        json.loads((directory / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return f"trainer_state.json cannot be read ({error})"
    names = ("optimizer.pt", "scheduler.pt") if sharding == "none" else ()
    wrong = [name for name in names if not zipfile.is_zipfile(directory / name)]  # as PyTorch writes them
    return f"{' and '.join(wrong)} {'are' if len(wrong) > 1 else 'is'} missing or cut off" if wrong else None


def find_start(config: RunConfig, output_dir: Path) -> Path | None:
    """The checkpoint that a run starts from; null starts from the beginning.

    Raises:
        CheckpointError: the checkpoint asked for is not there, not complete, or of another stage.
    """
    present = whole_checkpoints(output_dir)
    asked = config.train.resume_from_checkpoint
    if is_unfinished(config, output_dir):
        resumable = [path for path in present if _read_info(path).resumable]
        if resumable:
            log.info("this run was begun before and did not end: going on from %s", resumable[-1])
            return resumable[-1]
    if isinstance(asked, str):
        _read_info(Path(asked))
        _check_stage(config, Path(asked))
        return Path(asked)
    if asked and present:
        _check_stage(config, present[-1])
        log.info("resume_from_checkpoint: going on from %s", present[-1])
        return present[-1]
    if asked:
        log.info("resume_from_checkpoint: %s holds no checkpoint yet, starting from the beginning", output_dir)
    return None


def _check_stage(config: RunConfig, checkpoint: Path) -> None:
    """Its steps would count as steps of this run, and it as what they have learned."""
    settings = checkpoint / RUN_CONFIG_FILE
    if not settings.is_file():  # an incomplete directory, which is found out where it is loaded
        return
    trained = read_model_config(settings).method.stage
    if trained != config.method.stage:
        raise CheckpointError(
            f"resume_from_checkpoint: {checkpoint} is of stage {trained}, and this run is of stage "
            f"{config.method.stage}: start a new one from its weights with adapter_name_or_path: {checkpoint}, in "
            "another output_dir"
        )


def _read_info(directory: Path) -> CheckpointInfo:
    if (directory / CHECKPOINT_FILE).is_file():
        return CheckpointInfo.read(directory / CHECKPOINT_FILE)
    others = ", ".join(path.name for path in whole_checkpoints(directory.parent)) or "none"
    what = "is not there" if not directory.is_dir() else f"is no complete checkpoint ({CHECKPOINT_FILE} is missing)"
    raise CheckpointError(f"resume_from_checkpoint: {directory} {what}; complete ones in {directory.parent}: {others}")


def same_run(config: RunConfig) -> dict[str, Any]:
    """What must agree for one run to be the continuation of another: all settings but how and where it is started."""
    asked = config.train.resume_from_checkpoint
    settings: dict[str, Any] = json.loads(json.dumps(config.flat()))
    for key in ("overwrite_output_dir", *LaunchConfig.model_fields):
        del settings[key]
    return settings | {"resume_from_checkpoint": asked if isinstance(asked, str) else None}


def _described(sharding: Sharding) -> str:
    names = {"none": "neither deepspeed nor fsdp", "fsdp2": "fsdp"}
    return names.get(sharding, f"deepspeed (ZeRO-{sharding[-1]})")


def _step(checkpoint: Path) -> int:
    matched = CHECKPOINT_FOLDER.fullmatch(checkpoint.name)
    return int(matched[1]) if matched else -1


def _explain_failure(directory: Path, error: BaseException) -> str:
    free = shutil.disk_usage(directory.parent).free
    last = next((path.name for path in reversed(whole_checkpoints(directory.parent))), "none")
    return (
        f"cannot write {directory} ({error}); {free / 1e9:.3f} GB are free there. The half-written checkpoint is "
        f"removed, the last good one is: {last}. Make room (save_total_limit keeps fewer checkpoints, "
        "save_only_model smaller ones), then run the same command again"
    )


def _flush_to_disk(directory: Path) -> None:
    for path in directory.rglob("*"):
        flush_to_disk(path)
