"""The folder that a run writes into: made, writable, and of no other run."""

from __future__ import annotations

from pathlib import Path

from ivcp.settings import RunConfig
from ivcp.storage.atomic import writable_folder
from ivcp.training.checkpoints.folder import is_earlier_run, is_unfinished


def check_output_dir(config: RunConfig, output_dir: Path) -> None:
    """Makes `output_dir`, and refuses one that holds an earlier run.

    One whose run, with the same settings, did not come to its end is that run's.

    Raises:
        FileExistsError: it is not empty, and neither `overwrite_output_dir` nor `resume_from_checkpoint` is set.
        PermissionError: it cannot be written.
    """
    train = config.train
    try:
        writable_folder(output_dir)
    except OSError as error:
        raise PermissionError(f"output_dir: {error}") from error
    earlier = [entry for entry in output_dir.iterdir() if is_earlier_run(entry)]
    goes_on = train.resume_from_checkpoint or is_unfinished(config, output_dir)
    if earlier and not (train.overwrite_output_dir or goes_on):
        raise FileExistsError(
            f"output_dir: {output_dir} is not empty; set overwrite_output_dir: true to start again in it, "
            "or resume_from_checkpoint: true to continue"
        )
