"""The machine that trains: its packages and devices, its files and its disk."""

from __future__ import annotations

import logging
import math
import shutil
from pathlib import Path

from pydantic import ByteSize, TypeAdapter

from ivcp import storage
from ivcp.checks.base import num_weights
from ivcp.records.validation import ValidationReport
from ivcp.settings import ConfigError, DataConfig, RunConfig
from ivcp.settings.places import is_remote_model

log = logging.getLogger(__name__)

_FEWEST_CHECKPOINTS = 2
"""One and the result: what any training writes."""
_BYTES_OF_TWO_COPIES, _BYTES_OF_LIBRARIES = 2 * 4, 2 * 2**30
"""For each weight, the merged model and the one that it is compared with; for all of torch."""


def check_paths(config: RunConfig) -> None:
    """Checks that the files and folders exist that a training starts from.

    Raises:
        ConfigError: one does not.
    """
    started_from = {
        "adapter_name_or_path": config.method.adapter_name_or_path,
        "action_decoder_path": config.action_cls.action_decoder_path,
        "resume_from_checkpoint": config.train.resume_from_checkpoint,
        "reward_model": config.language.reward_model,
    }
    for key, path in started_from.items():
        if isinstance(path, str) and not _exists(path):
            raise ConfigError(f"{key} = {path} does not exist: correct the path, or leave it out")


def warn_of_export_memory(config: RunConfig) -> None:
    """Says of a pipeline on a cluster that its export step would be killed, hours after it began."""
    needed = _BYTES_OF_TWO_COPIES * num_weights(config.model) + _BYTES_OF_LIBRARIES
    asked = config.cluster.train_memory
    if TypeAdapter(ByteSize).validate_python(f"{asked}B") < needed:
        log.warning(
            "train_memory = %s: export holds the model twice in float32, about %.1f GiB: its pod would be killed; set "
            "train_memory: %dGi",
            *(asked, needed / 2**30, math.ceil(needed / 2**30)),
        )


def check_remote_adapter(config: RunConfig) -> None:
    """Checks, where no other file of the run is here, that an adapter on S3 exists.

    Raises:
        ConfigError: it does not.
    """
    start = config.method.adapter_name_or_path
    if start is not None and is_remote_model(start) and not _exists(start):
        raise ConfigError(f"adapter_name_or_path = {start} does not exist: correct the address, or leave it out")


def _exists(path: str) -> bool:
    return storage.exists(path) if storage.is_s3(path) else is_remote_model(path) or Path(path).exists()


def check_distribution_files(config: RunConfig) -> None:
    """Checks that `deepspeed` is a configuration, and one that the weights can be sharded by.

    Raises:
        ConfigError: it is none.
    """
    from ivcp.distributed.deepspeed_files import deepspeed_settings
    from ivcp.distributed.quantized import check_quantized_sharding

    if config.train.deepspeed:
        deepspeed_settings(config.train.deepspeed)
    check_quantized_sharding(config)


def check_devices(config: RunConfig) -> None:
    """Checks that this machine has the GPU or the compiler that settings need.

    Raises:
        AttentionError, ConfigError: it does not.
    """
    from ivcp.models.acceleration import check_acceleration
    from ivcp.models.load import check_attention

    check_attention(config.model)
    check_acceleration(config.speed)


def check_room_for_checkpoints(config: RunConfig, folder: Path) -> None:
    """Checks that a checkpoint and the result fit on the disk of `folder`, by the model's sizes alone.

    Raises:
        ConfigError: they do not.
    """
    from ivcp.launch.preflight import check_disk
    from ivcp.training.checkpoints.size import checkpoint_bytes

    if problem := check_disk(_FEWEST_CHECKPOINTS * checkpoint_bytes(config), existing_part(folder)):
        raise ConfigError(f"output_dir: {problem}")


def check_room_for_clips(report: ValidationReport, data: DataConfig, shards_uri: str) -> None:
    """Checks that the clips that validation found fit on the disk of a local `shards_uri`, with what lies there.

    Nothing is known of JPEG's sizes.

    Raises:
        ConfigError: they do not.
    """
    if report.estimate is None or storage.is_s3(shards_uri) or data.prepared_frames == "jpeg":
        return
    folder = Path(shards_uri)
    needed = report.estimate.shard_bytes - sum(storage.file_sizes(folder).values())
    free = shutil.disk_usage(existing_part(folder)).free
    if needed > free:
        raise ConfigError(
            f"{folder.absolute()}: the prepared clips need {needed / 1e9:.3g} GB more, {free / 1e9:.3g} GB are free: "
            "set shards_uri to a place with more room, lower video_max_pixels or video_num_frames, or set "
            "prepared_frames: jpeg"
        )


def existing_part(folder: Path) -> Path:
    """`folder`, or the nearest folder above it that exists."""
    return next(part for part in (folder.absolute(), *folder.absolute().parents) if part.exists())
