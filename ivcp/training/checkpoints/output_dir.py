"""The folder that a run writes into: made, writable, and of no other run."""

from __future__ import annotations

from pathlib import Path

from ivcp.records import CHECKPOINT_FOLDER
from ivcp.settings import ConfigError, RunConfig
from ivcp.storage.atomic import writable_folder
from ivcp.training.checkpoints.earlier_result import foreign_weights
from ivcp.training.checkpoints.folder import foreign_checkpoints, is_earlier_run, is_unfinished


def check_output_dir(config: RunConfig, output_dir: Path) -> None:
    """Makes `output_dir`, and refuses one that holds an earlier run, or what this project did not write.

    One whose run, with the same settings, did not come to its end is that run's.

    Raises:
        ConfigError: it is the folder of something that the run reads.
        FileExistsError: it is not empty, and neither `overwrite_output_dir` nor `resume_from_checkpoint` is set; or it
            holds weights or checkpoints of others.
        PermissionError: it cannot be written.
    """
    train = config.train
    try:
        writable_folder(output_dir)
    except OSError as error:
        raise PermissionError(f"output_dir: {error}") from error
    _check_not_read(config, output_dir)
    if foreign := [*foreign_checkpoints(output_dir), *foreign_weights(output_dir)]:
        raise FileExistsError(
            f"output_dir: {output_dir} holds {', '.join(foreign[:3])}, which no training of this project wrote: "
            "nothing is written over it; name another output_dir, or move it away"
        )
    earlier = [entry for entry in output_dir.iterdir() if is_earlier_run(entry)]
    asked = train.resume_from_checkpoint
    is_here = asked is True or (isinstance(asked, str) and Path(asked).resolve().parent == output_dir.resolve())
    goes_on = is_here or is_unfinished(config, output_dir)
    if earlier and not (train.overwrite_output_dir or goes_on):
        raise FileExistsError(
            f"output_dir: {output_dir} is not empty; set overwrite_output_dir: true to start again in it, "
            "or resume_from_checkpoint: true to continue"
        )


def _check_not_read(config: RunConfig, output_dir: Path) -> None:
    """Checks that the run does not start from what it removes or writes over.

    Raises:
        ConfigError: it does.
    """
    read = {
        "model_name_or_path": config.model.model_name_or_path,
        "adapter_name_or_path": config.method.adapter_name_or_path,
        "action_decoder_path": config.action_cls.action_decoder_path,
        "reward_model": config.language.reward_model,
        "ref_model": config.language.ref_model,
        "dataset_dir": config.data.dataset_dir,
        "media_dir": config.data.media_dir,
    }
    for key, place in read.items():
        if place is None or not Path(place).exists():
            continue
        folder = Path(place) if Path(place).is_dir() else Path(place).parent
        is_checkpoint = CHECKPOINT_FOLDER.fullmatch(folder.name) and folder.resolve().parent == output_dir.resolve()
        if folder.resolve() == output_dir.resolve() or is_checkpoint:
            raise ConfigError(
                f"{key} = {place} is in output_dir = {output_dir}, which a training makes anew: name another output_dir"
            )
