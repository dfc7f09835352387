"""Settings: one schema for YAML files, the command line and the pipeline's form, in LLaMA-Factory's spelling."""

from ivcp.settings.files import (
    ConfigError,
    config_from_settings,
    load_config,
    read_saved_config,
    save_config,
)
from ivcp.settings.keys import KeyHelp, describe_keys
from ivcp.settings.meaning import meaning_of, read_model_config, save_model_config, video_meaning
from ivcp.settings.pasted import read_pasted
from ivcp.settings.run import SECTION_OF_KEY, SECTIONS, RunConfig, from_flat
from ivcp.settings.sections.action_cls import ActionClsConfig, DecoderType, SweepDecoderType
from ivcp.settings.sections.cluster import ClusterConfig
from ivcp.settings.sections.data import DataConfig, VideoConfig
from ivcp.settings.sections.evaluation import EvaluationConfig, ExportConfig, TrackingConfig
from ivcp.settings.sections.generation import GenerationConfig
from ivcp.settings.sections.launch import LaunchConfig
from ivcp.settings.sections.model import MethodConfig, ModelConfig
from ivcp.settings.sections.protocol import ProtocolConfig
from ivcp.settings.sections.publishing import PublishingConfig
from ivcp.settings.sections.section import Section
from ivcp.settings.sections.serving import ServingConfig
from ivcp.settings.sections.training import AugmentationConfig, LossConfig, SpeedConfig, TrainConfig
from ivcp.settings.words import parse_overrides, read_value, read_words

__all__ = [
    "SECTIONS",
    "SECTION_OF_KEY",
    "ActionClsConfig",
    "AugmentationConfig",
    "ClusterConfig",
    "ConfigError",
    "DataConfig",
    "DecoderType",
    "EvaluationConfig",
    "ExportConfig",
    "GenerationConfig",
    "KeyHelp",
    "LaunchConfig",
    "LossConfig",
    "MethodConfig",
    "ModelConfig",
    "ProtocolConfig",
    "PublishingConfig",
    "RunConfig",
    "Section",
    "ServingConfig",
    "SpeedConfig",
    "SweepDecoderType",
    "TrackingConfig",
    "TrainConfig",
    "VideoConfig",
    "config_from_settings",
    "describe_keys",
    "from_flat",
    "load_config",
    "meaning_of",
    "parse_overrides",
    "read_model_config",
    "read_pasted",
    "read_saved_config",
    "read_value",
    "read_words",
    "save_config",
    "save_model_config",
    "video_meaning",
]
