"""The only schema of settings: `RunConfig` and its sections.

Settings keep LLaMA-Factory's spelling and are flat in files and on the command line; each belongs to exactly
one section. `components.config_files` reads them from YAML and from the command line.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class Section(BaseModel):
    """What all sections share: frozen, no unknown keys, field documentation from docstrings."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=())


class ModelConfig(Section):
    """The base model."""

    model_name_or_path: str | None = None
    """Path of a local model directory, or the id of a model on the Hugging Face hub."""
    model_revision: str = "main"
    """Branch, tag or commit of a hub model."""
    cache_dir: str | None = None
    """Where downloaded models are kept; null is the Hugging Face default."""
    trust_remote_code: bool = False
    """Run modelling code that comes with the model."""
    flash_attn: Literal["auto", "disabled", "sdpa", "fa2"] = "auto"
    """Attention implementation: transformers' choice, eager, PyTorch SDPA, or FlashAttention-2."""
    disable_gradient_checkpointing: bool = False
    """Keep activations instead of computing them again in the backward pass: faster, more memory."""


class MethodConfig(Section):
    """What is trained, and how a clip becomes class logits."""

    stage: Literal["action_cls", "sft", "pt", "rm", "ppo", "dpo", "kto"] = "action_cls"
    """Training stage. Other stages of LLaMA-Factory are read, and refused by the training step."""
    finetuning_type: Literal["lora", "full"] = "lora"
    """Train LoRA matrices, or all weights of the language model."""
    adapter_name_or_path: str | None = None
    """Adapter directory to evaluate, export or serve."""
    lora_rank: int = Field(8, ge=1)
    """Rank of the LoRA matrices."""
    lora_alpha: int | None = Field(None, ge=1)
    """LoRA's scaling numerator; null is twice the rank."""
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout in front of the LoRA matrices."""
    lora_target: str = "all"
    """`all` linear layers of the language model, comma-separated names of its layers, or a regular expression
    over full module names (anything that is not a plain list of names)."""
    quantization_bit: Literal[4, 8] | None = None
    """Quantize the frozen weights (QLoRA). Read, and refused by the training step."""
    use_rslora: bool = False
    """Scale LoRA by alpha / sqrt(rank) (rank-stabilised LoRA, arXiv:2312.03732)."""
    use_dora: bool = False
    """Weight-decomposed LoRA (arXiv:2402.09353)."""
    freeze_vision_tower: bool = True
    """Leave the vision tower untouched (full fine-tuning)."""
    freeze_multi_modal_projector: bool = True
    """Leave the projector between vision tower and language model untouched (full fine-tuning)."""
    num_action_classes: int | None = Field(None, ge=2)
    """Number of classes. Null counts the labels; a number that disagrees with the labels is an error."""
    action_decoder_type: Literal["linear", "mlp"] = "linear"
    """Classifier on the hidden state at the action token: one linear layer, or two with GELU."""
    action_decoder_hidden_size: int | None = Field(None, ge=1)
    """Width of the MLP decoder; null is the language model's hidden size."""
    action_decoder_dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout between the two layers of the MLP decoder."""
    action_decoder_path: str | None = None
    """Directory or `action_decoder.safetensors` file to start the decoder from; null starts it at random."""
    action_token: str = Field("<ACTION>", min_length=3)
    """The special token whose hidden state is classified. It stands once in every sample."""
    action_token_lr_scale: float = Field(0.1, ge=0)
    """Learning rate of the action token's embedding row, as a share of `learning_rate`."""

    @field_validator("lora_target", mode="before")
    @classmethod
    def _join_names(cls, value: Any) -> Any:
        return ",".join(value) if isinstance(value, list) else value

    @property
    def resolved_lora_alpha(self) -> int:
        """LoRA's alpha with its default applied."""
        return self.lora_alpha if self.lora_alpha is not None else 2 * self.lora_rank


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
    max_invalid_fraction: float = Field(0.05, ge=0, le=1)
    """Share of rows whose video may be unusable; more fails the validation step."""
    video_timeout_seconds: float = Field(60.0, gt=0)
    """A video whose decoding takes longer is quarantined and its worker process replaced."""

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

    @model_validator(mode="after")
    def _ordered_pixels(self) -> Self:
        if self.video_min_pixels > self.video_max_pixels:
            raise ValueError(
                f"video_min_pixels = {self.video_min_pixels} is above video_max_pixels = {self.video_max_pixels}"
            )
        return self


class TrainConfig(Section):
    """The optimisation."""

    do_train: bool = True
    """Train. `do_train: false` with `do_eval: true` only evaluates `output_dir`."""
    do_eval: bool = False
    """Evaluate after training (`ivcp train`); the pipeline always evaluates."""
    output_dir: str = "runs/output"
    """Where `ivcp train` writes the adapter directory and its checkpoints."""
    overwrite_output_dir: bool = False
    """Allow a non-empty `output_dir` and start again in it."""
    resume_from_checkpoint: str | bool | None = None
    """Checkpoint to continue from, or true for the last one in `output_dir`."""
    num_train_epochs: float = Field(3.0, gt=0)
    """Passes over the training split."""
    max_steps: int = -1
    """Optimizer steps; above 0 it replaces `num_train_epochs`."""
    per_device_train_batch_size: int = Field(8, ge=1)
    """Clips per forward pass and process."""
    per_device_eval_batch_size: int = Field(8, ge=1)
    """Clips per forward pass in evaluation."""
    gradient_accumulation_steps: int = Field(1, ge=1)
    """Forward passes per optimizer step."""
    learning_rate: float = Field(5e-5, gt=0)
    """Peak learning rate."""
    lr_scheduler_type: str = "linear"
    """A scheduler of transformers: linear, cosine, constant, constant_with_warmup, …"""
    warmup_ratio: float = Field(0.0, ge=0, lt=1)
    """Share of the steps in which the learning rate rises to its peak."""
    warmup_steps: int = Field(0, ge=0)
    """The same in steps; above 0 it replaces `warmup_ratio`."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's weight decay; norms, biases and the action token's row are exempt."""
    adam_beta1: float = Field(0.9, ge=0, lt=1)
    """AdamW's first momentum."""
    adam_beta2: float = Field(0.999, ge=0, lt=1)
    """AdamW's second momentum."""
    adam_epsilon: float = Field(1e-8, gt=0)
    """AdamW's epsilon."""
    max_grad_norm: float = Field(1.0, ge=0)
    """Gradients are clipped to this norm; 0 does not clip."""
    optim: str = "adamw_torch"
    """An optimizer of transformers."""
    label_smoothing_factor: float = Field(0.0, ge=0, lt=1)
    """Label smoothing of the cross-entropy."""
    bf16: bool = False
    """bfloat16 mixed precision."""
    fp16: bool = False
    """float16 mixed precision."""
    seed: int = 42
    """Seed of initialisation, splits, data order and dropout."""
    logging_steps: float = Field(500, gt=0)
    """Steps between two log rows (below 1: share of all steps)."""
    eval_strategy: Literal["no", "steps", "epoch"] | None = None
    """When the validation split is measured; null is every epoch where there is one."""
    eval_steps: float | None = Field(None, gt=0)
    """Steps between two validations with `eval_strategy: steps`."""
    save_strategy: Literal["no", "steps", "epoch"] = "steps"
    """When checkpoints are written."""
    save_steps: float = Field(500, gt=0)
    """Steps between two checkpoints (below 1: share of all steps)."""
    save_total_limit: int | None = Field(None, ge=1)
    """Checkpoints to keep; older ones are deleted."""
    save_only_model: bool = False
    """Write checkpoints without optimizer state: smaller, and not resumable."""
    load_best_model_at_end: bool = False
    """End with the checkpoint that is best on the validation split."""
    metric_for_best_model: str = "top1_accuracy"
    """What "best" means."""
    plot_loss: bool = False
    """Draw the loss and accuracy curves into the output folder."""
    dataloader_num_workers: int = Field(0, ge=0)
    """Processes that assemble batches; 0 does it in the training process."""
    report_to: tuple[str, ...] = ("mlflow",)
    """Where metrics go besides the log files: mlflow, tensorboard, wandb, or none."""
    run_name: str | None = None
    """Display name of the run."""

    @field_validator("eval_strategy", "save_strategy", mode="before")
    @classmethod
    def _yaml_no(cls, value: Any) -> Any:
        return "no" if value is False else value  # YAML reads a bare `no` as false

    @field_validator("report_to", mode="before")
    @classmethod
    def _as_names(cls, value: Any) -> Any:
        names = value.split(",") if isinstance(value, str) else (value or ())
        return tuple(name.strip() for name in names if name.strip() != "none")


class EvaluationConfig(Section):
    """The evaluation step and its gate."""

    min_top1_accuracy: float = Field(0.0, ge=0, le=1)
    """The gate: a model below this is neither exported nor deployed."""
    compare_with_champion: bool = True
    """The gate also refuses a model that is worse than the registered one with alias `model_alias`."""
    champion_tolerance: float = Field(0.0, ge=0, le=1)
    """How much top-1 accuracy below the champion still passes."""
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


class ServingConfig(Section):
    """The predictor."""

    serve_host: str = "127.0.0.1"
    """Address the predictor listens on."""
    serve_port: int = Field(0, ge=0, le=65535)
    """Port the predictor listens on; 0 takes a free one."""
    serve_timeout_seconds: float = Field(120.0, gt=0)
    """How long a deployment may take to become ready."""
    serve_keep: bool = False
    """Leave the predictor running after the local deployment's smoke test."""


class RunConfig(Section):
    """All settings of a run, by section."""

    model: ModelConfig = ModelConfig()
    method: MethodConfig = MethodConfig()
    data: DataConfig = DataConfig()
    video: VideoConfig = VideoConfig()
    train: TrainConfig = TrainConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    export: ExportConfig = ExportConfig()
    tracking: TrackingConfig = TrackingConfig()
    serving: ServingConfig = ServingConfig()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.train.bf16 and self.train.fp16:
            raise ValueError("bf16 and fp16 exclude each other: keep one")
        if self.method.action_decoder_hidden_size and self.method.action_decoder_type == "linear":
            raise ValueError(
                "action_decoder_hidden_size has no meaning for action_decoder_type: linear; "
                "remove it or choose action_decoder_type: mlp"
            )
        if self.train.load_best_model_at_end and not (self.data.val_size or self.data.eval_dataset):
            raise ValueError("load_best_model_at_end needs a validation split: set val_size or eval_dataset")
        return self

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
