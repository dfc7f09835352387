"""Turns a video language model into an action classifier: validates, prepares, trains, evaluates, exports and serves.

    import ivcp

    ivcp.train({"model_name_or_path": "Qwen/Qwen2-VL-2B-Instruct", "dataset": "mine"})
    ivcp.load("runs/latest/model").predict("clip.mp4")

Settings are those of a YAML file: a mapping of them, or the path of a file, with others by keyword that win over it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ivcp.network import set_up_network

if TYPE_CHECKING:
    from ivcp.records import PreparedIndex
    from ivcp.records.export import ExportResult
    from ivcp.records.language_evaluation import Measured
    from ivcp.records.validation import ValidationReport
    from ivcp.serving.predictor import Predictor
    from ivcp.settings import ModelConfig, RunConfig
    from ivcp.training.result import TrainingResult

__all__ = ["evaluate", "export", "load", "prepare", "train", "validate"]

set_up_network()  # before libraries that read their variables when they are imported

# bitsandbytes asks for the package `kernels` whenever it is imported; its kernel has no gradient and is not used here.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

Settings = Mapping[str, Any] | str | Path
"""Settings by their keys, or a YAML file with them."""


def validate(settings: Settings, **overrides: Any) -> ValidationReport:
    """Checks every row and every video, and assigns splits.

    Raises:
        ConfigError: a setting cannot be used.
        AnnotationError: the data cannot be used; names rows and reasons.
    """
    from ivcp import steps

    return steps.validate(_config(settings, overrides))


def prepare(settings: Settings, **overrides: Any) -> PreparedIndex:
    """Validates, decodes every clip once and writes the shards that training reads; errors as `validate`."""
    from ivcp import steps

    return steps.prepare(_config(settings, overrides))


def train(settings: Settings, **overrides: Any) -> TrainingResult:
    """Prepares what is not prepared yet, trains, and writes the adapter into `output_dir`; errors as `validate`."""
    from ivcp import steps

    return steps.train(_config(settings, overrides))


def evaluate(settings: Settings, **overrides: Any) -> Measured:
    """Measures the adapter in `output_dir` on the test split; errors as `validate`, and:

    Raises:
        ModelFilesError: there is no complete, trained adapter.
    """
    from ivcp import steps

    return steps.evaluate(_config(settings, overrides))


def export(settings: Settings, **overrides: Any) -> ExportResult:
    """Merges the adapter into a servable model directory and registers it; errors as `evaluate`.

    Without `dataset` the adapter is merged only: not measured, and not registered unless a setting names where.
    """
    from ivcp import steps

    return steps.export(_config(settings, overrides))


def load(model_dir: str | Path, *, machine: ModelConfig | None = None) -> Predictor:
    """A trained model, ready to `predict` video files; `model_dir` is a path or an s3:// URI.

    `machine` says how it runs here: its attention, and whether code that comes with the model is trusted.

    Raises:
        ModelFilesError: `model_dir` is no complete, trained model.
        ValueError: it is an address of another kind.
        FileNotFoundError, PermissionError, ConnectionError: it cannot be read.
    """
    from ivcp.serving.predictor import Predictor
    from ivcp.settings.places import as_place

    predictor = Predictor(as_place(str(model_dir)), machine=machine)
    predictor.load()
    return predictor


def _config(settings: Settings, overrides: Mapping[str, Any]) -> RunConfig:
    from ivcp.settings import config_from_settings, load_config

    if isinstance(settings, str | Path):
        return load_config(settings, overrides)
    if not isinstance(settings, Mapping):
        raise TypeError(f"expected settings as a mapping or the path of a YAML file, got {settings!r}")
    return config_from_settings({**settings, **overrides})
