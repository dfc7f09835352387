"""Where a directory's weights come from and how they are asked: `model_info.json`."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from ivcp.models.fingerprint import BaseWeights
from ivcp.records import Message, VersionedRecord

MODEL_INFO_FILE = "model_info.json"
EARLIER_INFO_FILE = "action_classifier.json"
"""Its name in directories that were written before files had a format version."""


class ModelInfo(VersionedRecord):
    """`model_info.json`: where the weights come from and how they are asked."""

    NEWEST_FORMAT: ClassVar[int] = 3

    format_version: int = 3
    trained_steps: int
    """Optimizer steps behind them."""
    prompt: tuple[Message, ...]
    """The conversation that the predictor uses when none is given."""
    data_fingerprint: str
    """Hash of the validated annotations."""
    prepared_fingerprint: str
    """Hash of everything the prepared samples depend on."""
    base: BaseWeights | None = None
    """The base model that it was trained on; null where an earlier version wrote the directory."""
    clip_seconds: float | None = None
    """What a training clip lasted, in the median; null where that is not known. A timeline's window lasts as long."""


def is_model_directory(directory: Path) -> bool:
    """Whether training or export wrote it."""
    return any((directory / name).is_file() for name in (MODEL_INFO_FILE, EARLIER_INFO_FILE))


def read_info(directory: Path) -> ModelInfo:
    """Where a directory's weights come from.

    Raises:
        FileNotFoundError: the directory does not say.
    """
    path, earlier = directory / MODEL_INFO_FILE, directory / EARLIER_INFO_FILE
    return ModelInfo.read(earlier if earlier.is_file() and not path.is_file() else path)
