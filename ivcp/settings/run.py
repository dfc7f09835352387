"""The whole schema: `RunConfig` and its sections.

Settings keep LLaMA-Factory's spelling and are flat in files and on the command line; each belongs to exactly
one section. `ivcp.settings.files` reads them from YAML and from the command line.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import model_validator

from ivcp.settings.sections.action_cls import ActionClsConfig
from ivcp.settings.sections.cluster import ClusterConfig
from ivcp.settings.sections.data import DataConfig, VideoConfig
from ivcp.settings.sections.evaluation import EvaluationConfig, ExportConfig, TrackingConfig
from ivcp.settings.sections.generation import GenerationConfig
from ivcp.settings.sections.language import LanguageConfig
from ivcp.settings.sections.launch import LaunchConfig
from ivcp.settings.sections.model import MethodConfig, ModelConfig
from ivcp.settings.sections.protocol import ProtocolConfig
from ivcp.settings.sections.publishing import PublishingConfig
from ivcp.settings.sections.section import Section
from ivcp.settings.sections.serving import ServingConfig
from ivcp.settings.sections.training import AugmentationConfig, LossConfig, SpeedConfig, TrainConfig


class RunConfig(Section):
    """All settings of a run, by section."""

    model: ModelConfig = ModelConfig()
    method: MethodConfig = MethodConfig()
    action_cls: ActionClsConfig = ActionClsConfig()
    language: LanguageConfig = LanguageConfig()
    data: DataConfig = DataConfig()
    video: VideoConfig = VideoConfig()
    train: TrainConfig = TrainConfig()
    loss: LossConfig = LossConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    speed: SpeedConfig = SpeedConfig()
    launch: LaunchConfig = LaunchConfig()
    generation: GenerationConfig = GenerationConfig()
    protocol: ProtocolConfig = ProtocolConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    export: ExportConfig = ExportConfig()
    publishing: PublishingConfig = PublishingConfig()
    tracking: TrackingConfig = TrackingConfig()
    serving: ServingConfig = ServingConfig()
    cluster: ClusterConfig = ClusterConfig()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.serving.serve_target == "cluster" and self.export.models_uri is None:
            raise ValueError(
                "serve_target: cluster needs models_uri, a place that the predictor's pods can read the model from: "
                "an s3:// prefix, or a folder on a volume that they mount"
            )
        if self.serving.serve_graph and self.export.graph_runtime is None:
            raise ValueError("serve_graph: true needs a graph: set export_runtime or export_quantization_bit")
        if self.train.bf16 and self.train.fp16:
            raise ValueError("bf16 and fp16 exclude each other: keep one")
        bits, finetuning_type = self.method.quantization_bit, self.method.finetuning_type
        if bits and finetuning_type != "lora":
            raise ValueError(
                f"quantization_bit = {bits} with finetuning_type: {finetuning_type}: quantized weights cannot be "
                "trained; choose finetuning_type: lora, or remove quantization_bit"
            )
        if self.train.deepspeed and self.train.fsdp:
            raise ValueError("deepspeed and fsdp exclude each other: keep one")
        if self.augmentation.augment_temporal_jitter and self.video.video_frame_candidates == 1:
            raise ValueError(
                "augment_temporal_jitter needs stored frames to choose from: set video_frame_candidates: 3"
            )
        if self.protocol.folds and (self.data.test_size or self.data.test_dataset):
            raise ValueError(
                f"folds = {self.protocol.folds} tests every clip of dataset once: remove test_size and test_dataset"
            )
        if self.protocol.official_splits and (self.data.dataset or self.data.test_size or self.data.test_dataset):
            raise ValueError(
                "official_splits names the data sets, and each names its test clips: remove dataset, test_size and "
                "test_dataset"
            )
        protocol = self.protocol
        if self.action_cls.has_other_targets and (protocol.folds or protocol.repeats or protocol.num_views > 1):
            raise ValueError(
                "folds, seeds, official_splits, test_num_clips and test_num_crops are for models that tell one class: "
                "leave them out with problem_type or action_heads"
            )
        candidates = self.video.video_frame_candidates
        if (
            self.protocol.folds
            and 1 not in (candidates, self.protocol.test_num_clips)
            and (candidates != self.protocol.test_num_clips)
        ):
            raise ValueError(
                f"folds tests clips that other folds train on, which are stored once: set test_num_clips = "
                f"{self.protocol.test_num_clips} and video_frame_candidates = {candidates} to the same number"
            )
        needs_val = {
            "load_best_model_at_end": self.train.load_best_model_at_end,
            "early_stopping_steps": self.train.early_stopping_steps is not None,
            "lr_scheduler_type: reduce_lr_on_plateau": self.train.lr_scheduler_type == "reduce_lr_on_plateau",
        }
        if any(needs_val.values()) and not (self.data.val_size or self.data.eval_dataset):
            named = " and ".join(key for key, is_set in needs_val.items() if is_set)
            raise ValueError(f"{named} needs a validation split: set val_size or eval_dataset")
        return self

    @model_validator(mode="after")
    def _head_sweep_is_possible(self) -> Self:
        """A sweep trains decoders on states computed once: what would change the states, or the start, has no place."""
        if not self.action_cls.head_sweep:
            return self
        if (self.method.finetuning_type, self.method.freeze_trainable_layers) != ("freeze", 0):
            raise ValueError(
                "head_sweep needs a frozen backbone: set finetuning_type: freeze, freeze_trainable_layers: 0"
            )
        if self.train.deepspeed or self.train.fsdp:
            raise ValueError("head_sweep trains decoders only, with nothing to shard: remove deepspeed and fsdp")
        if not (self.data.val_size or self.data.eval_dataset):
            raise ValueError("head_sweep chooses a decoder by its validation accuracy: set val_size or eval_dataset")
        in_the_way = {
            "action_decoder_path": self.action_cls.action_decoder_path is not None,
            "action_cls_token_loss_weight": self.action_cls.action_cls_token_loss_weight > 0,
            "mixup_alpha": self.loss.mixup_alpha > 0,
            "augment_crop, augment_flip, augment_color_jitter or augment_temporal_jitter": (
                self.augmentation.changes_frames
            ),
            "resume_from_checkpoint": bool(self.train.resume_from_checkpoint),
        }
        if set_keys := [key for key, is_set in in_the_way.items() if is_set]:
            raise ValueError(
                f"head_sweep trains new decoders on states that are computed once: remove {', '.join(set_keys)}"
            )
        return self

    @property
    def data_seed(self) -> int:
        """Seed of what is drawn of the data."""
        return self.train.seed if self.protocol.split_seed is None else self.protocol.split_seed

    def with_data_seed(self) -> Self:
        """The same with the seed of the data as the only one: what is made of the data is the same for all seeds."""
        train = self.train.model_copy(update={"seed": self.data_seed})
        protocol = self.protocol.model_copy(update={"split_seed": None})
        return self.model_copy(update={"train": train, "protocol": protocol})

    @property
    def stored_candidates(self) -> dict[Literal["train", "val", "test"], int]:
        """Frames that are stored around each sampled moment, by split: training chooses among them, and the views of
        test clips are made of them. A fold tests what others train on."""
        of_train, of_test = self.video.video_frame_candidates, self.protocol.test_num_clips
        if self.protocol.folds:
            of_train = of_test = max(of_train, of_test)
        return {"train": of_train, "val": 1, "test": of_test}

    @property
    def deployed_graph(self) -> str | None:
        """The folder of the exported directory whose graph is deployed; null where the PyTorch model is."""
        is_deployed = self.export.graph_runtime is not None and self.serving.serve_graph is not False
        return self.export.graph_folder if is_deployed else None

    @property
    def registered_name(self) -> str:
        """The model's name in the registry."""
        stage = self.method.stage
        usual = "ivcp-action-classifier" if stage == "action_cls" else f"ivcp-{stage}"
        return self.export.registered_model_name or usual

    @property
    def is_rounded(self) -> bool:
        """Whether numbers or weights have 16 bits or fewer somewhere, so that a merged model has other numbers."""
        return bool(self.train.bf16 or self.train.fp16 or self.method.quantization_bit)

    def flat(self) -> dict[str, Any]:
        """Every setting by its key, as JSON types."""
        sections = self.model_dump(mode="json")
        return {key: value for section in sections.values() for key, value in section.items()}

    def changed(self) -> dict[str, Any]:
        """The settings that are no defaults, by key."""
        defaults = RunConfig().flat()
        return {key: value for key, value in self.flat().items() if value != defaults[key]}


SECTIONS: dict[str, type[Section]] = {
    name: field.annotation  # type: ignore[misc]
    for name, field in RunConfig.model_fields.items()
}


SECTION_OF_KEY: dict[str, str] = {key: name for name, cls in SECTIONS.items() for key in cls.model_fields}


def from_flat(settings: dict[str, Any]) -> RunConfig:
    """The configuration that flat settings describe; unmentioned ones have their defaults.

    Raises:
        KeyError: for a key that no section has (`ivcp.settings.files` explains it to users).
        pydantic.ValidationError: for a value that does not fit its field.
    """
    sections: dict[str, dict[str, Any]] = {}
    for key, value in settings.items():
        sections.setdefault(SECTION_OF_KEY[key], {})[key] = value
    return RunConfig.model_validate(sections)
