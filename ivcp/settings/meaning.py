"""Which settings say what a model means, and are stored with it; all others say what a run or a machine does.

A model directory keeps the first kind only: the attention kernel, trust in code that comes with a model, paths, workers
and caches are chosen by whoever runs it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ivcp.settings.files import ConfigError, config_from_settings
from ivcp.settings.places import is_remote_model
from ivcp.settings.run import RunConfig
from ivcp.settings.sections.data import VideoConfig
from ivcp.settings.sections.model import ModelConfig
from ivcp.storage.atomic import write_whole

MEANING: dict[str, tuple[str, ...]] = {
    "model": ("model_name_or_path", "model_revision"),
    "method": (
        "stage",
        "finetuning_type",
        "freeze_trainable_layers",
        "lora_rank",
        "lora_alpha",
        "lora_target",
        "use_rslora",
        "use_dora",
        "quantization_bit",
        "quantization_type",
        "double_quantization",
        "freeze_vision_tower",
        "freeze_multi_modal_projector",
    ),
    "action_cls": (
        "num_action_classes",
        "action_token",
        "action_decoder_type",
        "action_decoder_hidden_size",
        "action_decoder_num_transformer_layers",
        "action_decoder_num_heads",
        "problem_type",
        "action_heads",
    ),
    "data": ("cutoff_len",),
    "video": (
        "video_num_frames",
        "video_fps",
        "video_maxlen",
        "video_max_pixels",
        "video_min_pixels",
        "image_max_pixels",
        "image_min_pixels",
        "use_audio_in_video",
        "audio_sampling_rate",
    ),
    "train": ("bf16", "fp16"),
}
"""Section → the keys of it that a model directory keeps."""
_OF_OTHER_TARGETS = ("problem_type", "action_heads")
"""Left out where a clip's label is one class."""
FORMAT_VERSION = 2
"""What is read. 2 is written where earlier versions would take the model for one of one class."""
_VERSION_KEY = "format_version"


def meaning_of(config: RunConfig) -> dict[str, Any]:
    """The settings that a model directory keeps, as JSON types."""
    settings = config.model_dump(mode="json")
    return {key: settings[name][key] for name, keys in MEANING.items() for key in keys}


def video_meaning(video: VideoConfig) -> dict[str, Any]:
    """How a model sees videos and images and hears sounds, without what a machine decides: what decodes them, what else
    is stored."""
    return video.model_dump(mode="json", include=set(MEANING["video"]))


def save_model_config(config: RunConfig, path: Path) -> None:
    """Writes what the model means as flat JSON."""
    has_others, settings = config.action_cls.has_other_targets, meaning_of(config)
    kept = {key: value for key, value in settings.items() if has_others or key not in _OF_OTHER_TARGETS}
    described = {_VERSION_KEY: FORMAT_VERSION if has_others else 1, **kept}
    write_whole(path, json.dumps(described, indent=2, ensure_ascii=False) + "\n")


def read_model_config(path: Path, *, machine: ModelConfig | None = None) -> RunConfig:
    """Reads what `save_model_config` wrote, with a machine's settings of the base model in place of their defaults.

    Files of the time before there was a version hold all settings of their run; those that are a machine's are left
    out.

    Raises:
        FileNotFoundError: there is no such file.
        ConfigError: it is damaged, of a newer version, or holds a value that does not fit.
    """
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path} is not valid JSON ({error}): copy the directory again, or write it again") from error
    version = settings.get(_VERSION_KEY, 0) if isinstance(settings, dict) else None
    if not isinstance(version, int):
        raise ConfigError(f"{path}: expected an object with the settings of a model, got {str(settings)[:80]}")
    if version > FORMAT_VERSION:
        raise ConfigError(
            f"{path} has {_VERSION_KEY} {version}, this version of ivcp reads {FORMAT_VERSION} and earlier: install "
            "the version that wrote it, or a later one"
        )
    known = {key for keys in MEANING.values() for key in keys}
    config = config_from_settings({k: v for k, v in settings.items() if k in known}, source=str(path))
    if machine is None:
        return config
    own = {key: getattr(config.model, key) for key in MEANING["model"]}
    if _was_moved(config.model, machine):
        own["model_name_or_path"] = machine.model_name_or_path
    return config.model_copy(update={"model": machine.model_copy(update=own)})


def _was_moved(recorded: ModelConfig, machine: ModelConfig) -> bool:
    """Whether a base model that was a folder is not there any more, and `machine` names one that may be."""
    then, now = recorded.model_name_or_path, machine.model_name_or_path
    if then is None or now is None:
        return False
    if is_remote_model(now):
        return not Path(then).exists() and not is_remote_model(then)
    return not Path(then).exists() and Path(now).is_dir()
