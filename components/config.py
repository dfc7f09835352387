"""The only schema of settings: `RunConfig` and its sections.

Settings keep LLaMA-Factory's spelling and are flat in files and on the command line; each belongs to exactly
one section. `components.config_files` reads them from YAML and from the command line.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from components.cluster_config import ClusterConfig
from components.training_config import (
    AugmentationConfig,
    LaunchConfig,
    LossConfig,
    MethodConfig,
    ModelConfig,
    Section,
    SpeedConfig,
    TrainConfig,
)

Strictness = Literal["error", "warn", "ignore"]
_DNS_LABEL = r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$"


class DataConfig(Section):
    """Which annotations are read, and how they are split."""

    dataset: tuple[str, ...] = ()
    """Names in `dataset_info.json` to train on, comma-separated."""
    eval_dataset: tuple[str, ...] = ()
    """Names of the validation data sets. Exclusive with `val_size`."""
    test_dataset: tuple[str, ...] = ()
    """Names of the data sets that only the evaluation step sees. Exclusive with `test_size`."""
    dataset_dir: str = "data"
    """Folder or s3:// prefix with `dataset_info.json`."""
    media_dir: str | None = None
    """Folder or s3:// prefix that relative video paths start from; null is `dataset_dir`."""
    cutoff_len: int = Field(2048, ge=1)
    """Longest sample in tokens. A longer one is an error that names the row; nothing is ever cut."""
    max_samples: int | None = Field(None, ge=1)
    """Use at most this many rows of each data set (the first ones after a seeded shuffle)."""
    val_size: float = Field(0.0, ge=0)
    """Validation share (below 1) or number of clips (1 and above), cut from `dataset` by group."""
    test_size: float = Field(0.0, ge=0)
    """Test share or number of clips, cut from `dataset` by group."""
    preprocessing_num_workers: int | None = Field(None, ge=1)
    """Processes that decode videos; null is one per core."""
    preprocessing_parts: int = Field(1, ge=1)
    """Tasks that prepare clips side by side on a cluster, each whole shards; every one is a pod."""
    prepared_frames: Literal["raw", "jpeg"] = "raw"
    """How frames are kept in shards. JPEG takes a tenth of the space, a tenth of the reading speed, and changes
    pixels: what is evaluated is then not quite what the predictor sees."""
    prepared_jpeg_quality: int = Field(95, ge=1, le=100)
    """Of `prepared_frames: jpeg`."""
    prepared_verify_checksums: bool = False
    """Compare the checksum of every shard before a step uses it, which reads all of them; sizes are always compared."""
    max_invalid_fraction: float = Field(0.05, ge=0, le=1)
    """Share of rows whose video may be unusable; more fails the validation step."""
    video_timeout_seconds: float = Field(60.0, gt=0)
    """A video whose decoding takes longer is quarantined and its worker process replaced; for each clip of it."""
    video_memory_gigabytes: float = Field(4.0, gt=0)
    """A video that takes more memory in its worker process is quarantined."""
    on_leaks: Strictness = "error"
    """What validation does where a group, or the same video content, stands in more than one split: accuracy on such a
    test split says too much. `error` refuses the data, `warn` logs it, `ignore` only reports it."""
    on_near_duplicates: Strictness = "warn"
    """The same for videos of several splits that look alike, though their bytes differ."""
    on_duplicates: Strictness = "warn"
    """The same for clips with the same content and span."""
    on_label_conflicts: Strictness = "warn"
    """The same for clips with the same content and span and different labels."""
    near_duplicate_frames: int = Field(4, ge=0, le=16)
    """Frames of each video that are compared with those of all others; 0 compares none."""
    near_duplicate_distance: float = Field(4.0, ge=0, le=16)
    """Videos look alike whose frames differ in at most this many of 64 bits, on average."""
    report_thumbnails: int = Field(2, ge=0, le=8)
    """Thumbnails of each class in the validation report, as far as 400 in all suffice."""
    report_examples: int = Field(100, ge=1)
    """Most duplicates, leaks and long rows that the validation report names; all of them are counted."""

    @model_validator(mode="after")
    def _quality_is_used(self) -> Self:
        if self.prepared_frames == "raw" and self.prepared_jpeg_quality != 95:
            raise ValueError(
                f"prepared_jpeg_quality = {self.prepared_jpeg_quality} has no meaning for prepared_frames: raw; "
                "remove it or choose prepared_frames: jpeg"
            )
        return self

    @property
    def jpeg_quality(self) -> int | None:
        """Of prepared frames; null keeps their pixels."""
        return self.prepared_jpeg_quality if self.prepared_frames == "jpeg" else None

    @field_validator("dataset", "eval_dataset", "test_dataset", mode="before")
    @classmethod
    def _split_names(cls, value: Any) -> Any:
        if value is None:
            return ()
        return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_source_per_split(self) -> Self:
        for split, names in (("val", self.eval_dataset), ("test", self.test_dataset)):
            size = self.val_size if split == "val" else self.test_size
            if names and size:
                key = "eval_dataset" if split == "val" else "test_dataset"
                raise ValueError(f"{key} = {','.join(names)} and {split}_size = {size} exclude each other: keep one")
        return self


class VideoConfig(Section):
    """How frames are sampled and sized: stored with the model, the same for training, evaluation and serving."""

    video_num_frames: int | None = Field(None, ge=1)
    """Sample exactly this many frames, evenly spread. Null samples by `video_fps`."""
    video_fps: float = Field(2.0, gt=0)
    """Frames per second to sample when `video_num_frames` is null."""
    video_maxlen: int = Field(128, ge=1)
    """Most frames per clip when sampling by `video_fps`."""
    video_max_pixels: int = Field(256 * 256, ge=1)
    """Most pixels per frame; larger frames are scaled down, keeping their aspect."""
    video_min_pixels: int = Field(16 * 16, ge=1)
    """Fewest pixels per frame; smaller frames are scaled up, keeping their aspect."""
    video_frame_candidates: int = Field(1, ge=1)
    """Frames of training clips stored around each sampled moment, for `augment_temporal_jitter`."""
    video_backend: Literal["auto", "pyav", "decord", "torchcodec"] = "auto"
    """What decodes videos, where it gives the right frames; PyAV elsewhere. `auto` is what is fastest: PyAV."""

    @model_validator(mode="after")
    def _ordered_pixels(self) -> Self:
        if self.video_min_pixels > self.video_max_pixels:
            raise ValueError(
                f"video_min_pixels = {self.video_min_pixels} is above video_max_pixels = {self.video_max_pixels}"
            )
        return self


class EvaluationConfig(Section):
    """The evaluation step and its gate."""

    min_top1_accuracy: float = Field(0.0, ge=0, le=1)
    """The gate: a model below this is neither exported nor deployed."""
    compare_with_champion: bool = True
    """The gate also refuses a model that is worse than the registered one with alias `model_alias`."""
    champion_tolerance: float = Field(0.0, ge=0, le=1)
    """How much top-1 accuracy below the champion still passes."""
    skip_unchanged: bool = False
    """End the pipeline before training, and well, when neither data nor settings changed since the champion."""
    disturb_frames: tuple[Literal["reversed", "shuffled", "middle"], ...] = ()
    """Also measure with disturbed frames, to see whether the order of time is used."""

    @field_validator("disturb_frames", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(v.strip() for v in value.split(",") if v.strip()) if isinstance(value, str) else (value or ())


class ExportConfig(Section):
    """The merged model and its place in the registry."""

    export_dir: str | None = None
    """Where the merged model goes; null is inside the run's folder."""
    export_size: float = Field(5.0, gt=0)
    """Largest weight file in gigabytes; a larger model is split over several."""
    models_uri: str | None = None
    """Folder or s3:// prefix that exported models are copied to, each to `<registered_model_name>/<run>` below it;
    that copy is what is registered and deployed. Null leaves a model where the step wrote it."""
    registered_model_name: str = "ivcp-action-classifier"
    """Name in MLflow's model registry."""
    model_alias: str = "champion"
    """Alias that the newly registered version receives."""


class TrackingConfig(Section):
    """MLflow."""

    mlflow_tracking_uri: str | None = None
    """MLflow server or store; null is MLFLOW_TRACKING_URI, else a sqlite file in the runs folder."""
    mlflow_experiment_name: str = "ivcp"
    """Experiment that runs belong to."""
    mlflow_run_id: str | None = None
    """Run that every step logs to; null is MLFLOW_RUN_ID, else a run of each step's own. The pipeline sets it."""


class ServingConfig(Section):
    """The predictor."""

    serve_target: Literal["local", "cluster"] = "local"
    """Where the serving step deploys: a process beside it that it checks, or the Kubernetes cluster."""
    serve_namespace: str = Field("ivcp", pattern=_DNS_LABEL)
    """Namespace of the predictor on a cluster."""
    serve_name: str = Field("action-classifier", pattern=_DNS_LABEL)
    """Name of the predictor's Deployment and Service on a cluster."""
    serve_image: str | None = None
    """The predictor's image on a cluster, such as one with CUDA; null is the image that the step itself runs in."""
    serve_url: str | None = None
    """Where the step reaches the predictor's Service on a cluster; null is its name in the cluster's DNS. From
    elsewhere, its path through `kubectl proxy`."""
    serve_take_over: bool = False
    """Overwrite fields that `kubectl edit` or another tool owns; without it such a field is an error."""
    serve_host: str = "127.0.0.1"
    """Address the predictor listens on."""
    serve_port: int = Field(0, ge=0, le=65535)
    """Port the predictor listens on; 0 takes a free one."""
    serve_timeout_seconds: float = Field(900.0, gt=0)
    """How long a deployment may take to become ready: a new node, the image and the model take minutes."""
    serve_keep: bool = False
    """Leave the predictor running after the local deployment's smoke test."""


class RunConfig(Section):
    """All settings of a run, by section."""

    model: ModelConfig = ModelConfig()
    method: MethodConfig = MethodConfig()
    data: DataConfig = DataConfig()
    video: VideoConfig = VideoConfig()
    train: TrainConfig = TrainConfig()
    loss: LossConfig = LossConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    speed: SpeedConfig = SpeedConfig()
    launch: LaunchConfig = LaunchConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    export: ExportConfig = ExportConfig()
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
        if self.train.bf16 and self.train.fp16:
            raise ValueError("bf16 and fp16 exclude each other: keep one")
        if self.method.action_decoder_hidden_size and self.method.action_decoder_type == "linear":
            raise ValueError(
                "action_decoder_hidden_size has no meaning for action_decoder_type: linear; "
                "remove it or choose action_decoder_type: mlp or transformer"
            )
        bits, finetuning_type = self.method.quantization_bit, self.method.finetuning_type
        if bits and finetuning_type != "lora":
            raise ValueError(
                f"quantization_bit = {bits} with finetuning_type: {finetuning_type}: quantized weights cannot be "
                "trained; choose finetuning_type: lora, or remove quantization_bit"
            )
        if self.method.head_sweep and (finetuning_type, self.method.freeze_trainable_layers) != ("freeze", 0):
            raise ValueError(
                "head_sweep needs a frozen backbone: set finetuning_type: freeze, freeze_trainable_layers: 0"
            )
        if self.method.head_sweep:
            self._check_head_sweep()
        if self.method.head_sweep and (self.train.deepspeed or self.train.fsdp):
            raise ValueError("head_sweep trains decoders only, with nothing to spread: remove deepspeed and fsdp")
        if self.train.deepspeed and self.train.fsdp:
            raise ValueError("deepspeed and fsdp exclude each other: keep one")
        if self.augmentation.augment_temporal_jitter and self.video.video_frame_candidates == 1:
            raise ValueError(
                "augment_temporal_jitter needs stored frames to choose from: set video_frame_candidates: 3"
            )
        if self.train.load_best_model_at_end and not (self.data.val_size or self.data.eval_dataset):
            raise ValueError("load_best_model_at_end needs a validation split: set val_size or eval_dataset")
        if self.train.early_stopping_steps and not (self.data.val_size or self.data.eval_dataset):
            raise ValueError("early_stopping_steps needs a validation split: set val_size or eval_dataset")
        return self

    def _check_head_sweep(self) -> None:
        """A sweep trains decoders on states computed once: what would change the states, or the start, has no place."""
        if not (self.data.val_size or self.data.eval_dataset):
            raise ValueError("head_sweep chooses a decoder by its validation accuracy: set val_size or eval_dataset")
        in_the_way = {
            "action_decoder_path": self.method.action_decoder_path is not None,
            "action_cls_token_loss_weight": self.method.action_cls_token_loss_weight > 0,
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

    def flat(self) -> dict[str, Any]:
        """Every setting by its key, as JSON types."""
        sections = self.model_dump(mode="json")
        return {key: value for section in sections.values() for key, value in section.items()}


SECTIONS: dict[str, type[Section]] = {
    name: field.annotation  # type: ignore[misc]
    for name, field in RunConfig.model_fields.items()
}
SECTION_OF_KEY: dict[str, str] = {key: name for name, cls in SECTIONS.items() for key in cls.model_fields}


def from_flat(settings: dict[str, Any]) -> RunConfig:
    """The configuration that flat settings describe; unmentioned ones have their defaults.

    Raises:
        KeyError: for a key that no section has (`components.config_files` explains it to users).
        pydantic.ValidationError: for a value that does not fit its field.
    """
    sections: dict[str, dict[str, Any]] = {}
    for key, value in settings.items():
        sections.setdefault(SECTION_OF_KEY[key], {})[key] = value
    return RunConfig.model_validate(sections)
