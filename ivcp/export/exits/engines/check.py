"""Whether other engines can serve a model, from its files alone: before anything is trained, or merged."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from ivcp.export.exits.engines.names import TRANSFORMERS, VLLM, VLLM_MODEL_TYPES
from ivcp.models.configuration import read_configuration
from ivcp.models.path import looks_local
from ivcp.records import RUN_CONFIG_FILE
from ivcp.settings import ConfigError, ModelConfig, read_model_config

_MODEL_CONFIG = "config.json"
"""As `ivcp.models.backbone_files` calls it, which is heavy."""


def check_engines(engines: Collection[str], model: ModelConfig) -> None:
    """Checks them against a base model's configuration; a path that this machine lacks is left to those that see it.

    Raises:
        ConfigError: an engine does not serve such a model.
    """
    name = model.model_name_or_path
    if not engines or name is None or (looks_local(name) and not Path(name).exists()):
        return
    kind = read_configuration(name, model).model_type
    if VLLM in engines and kind not in VLLM_MODEL_TYPES:
        others = " and keep transformers" if TRANSFORMERS in engines else ""
        raise ConfigError(
            f"export_engines: vllm gives this project's answers for {', '.join(VLLM_MODEL_TYPES)}, {name} is a {kind}: "
            f"leave vllm out{others}; `ivcp serve` serves every model, and has vLLM's /classify too"
        )


def check_engines_of(adapter_dir: Path, engines: Collection[str], *, machine: ModelConfig) -> None:
    """The same for what a training wrote: its own base model counts, whatever the settings name now.

    Raises:
        ConfigError: an engine does not serve such a model.
    """
    model = read_model_config(adapter_dir / RUN_CONFIG_FILE, machine=machine).model
    if (adapter_dir / _MODEL_CONFIG).is_file():  # merged weights, or full ones
        model = model.model_copy(update={"model_name_or_path": str(adapter_dir), "model_revision": "main"})
    check_engines(engines, model)
