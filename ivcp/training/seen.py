"""What the model of a run will have seen when it is trained."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from ivcp.data.prepared.reader import read_identities
from ivcp.data.seen_clips import SeenClips
from ivcp.models.source import local_model
from ivcp.records import PreparedIndex
from ivcp.settings import RunConfig
from ivcp.stages.model_info import is_model_directory

log = logging.getLogger(__name__)


def clips_to_see(config: RunConfig, index: PreparedIndex) -> SeenClips:
    """The training clips, the validation clips where they choose, and what the models that it starts from have seen.

    Raises:
        ShardError: the table of the prepared clips is missing or damaged.
        ValueError: an earlier version prepared them.
    """
    seen = SeenClips(trained=read_identities(index, "train"))
    if chooses_by_validation(config):
        seen = seen.joined(SeenClips(selected=read_identities(index, "val")))
    for directory in _starting_points(config):
        earlier = SeenClips.of_directory(directory)
        if not earlier.is_complete:
            log.warning("%s does not say which clips its model has seen, and neither will the new one", directory)
        seen = seen.joined(earlier)
    return seen


def chooses_by_validation(config: RunConfig) -> bool:
    """Whether the model that is kept depends on the validation split."""
    train = config.train
    return bool(train.load_best_model_at_end or train.early_stopping_steps or config.action_cls.head_sweep)


def _starting_points(config: RunConfig) -> Iterator[Path]:
    """The directories of trained models whose weights the run begins with."""
    if config.method.adapter_name_or_path:
        yield Path(local_model(config.method.adapter_name_or_path))
    if config.action_cls.action_decoder_path:
        decoder = Path(config.action_cls.action_decoder_path)
        yield decoder if decoder.is_dir() else decoder.parent
    if config.model.model_name_or_path:
        base = Path(local_model(config.model.model_name_or_path))
        if is_model_directory(base):
            yield base
