"""What the model of a directory does, from its settings alone: which routes a server has is known before it loads."""

from __future__ import annotations

from pathlib import Path

from ivcp import storage
from ivcp.records import RUN_CONFIG_FILE
from ivcp.settings import ConfigError, read_model_config
from ivcp.stages.base_model import is_base_model
from ivcp.stages.protocol import ServedAs
from ivcp.stages.registry import stage_of

_DESCRIBING = frozenset({RUN_CONFIG_FILE, "config.json"})


def kind_of(model_uri: Path | str) -> ServedAs:
    """What a model directory, a path or an s3:// URI, is for; what is wrong with it is said when it is loaded.

    Raises:
        PermissionError, ConnectionError: its address cannot be read.
    """
    try:
        directory = storage.local_path(model_uri, only=_DESCRIBING.__contains__)
        if is_base_model(directory):
            return "writer"
        stage = stage_of(read_model_config(directory / RUN_CONFIG_FILE))
    except (FileNotFoundError, NotADirectoryError, ConfigError):
        return "classifier"
    return stage.served_as or "classifier"
