"""Settings of the optimisation: what is minimised, in which order, from which frames, with how little work."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from ivcp.settings.places import FileOrName, LocalPath, PathOrFlag
from ivcp.settings.sections.section import Section, as_names

Scheduler = Literal[
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
    "reduce_lr_on_plateau",
]
"""Those of transformers that need no settings of their own."""
Optimizer = Literal[
    "adamw_torch",
    "adamw_torch_fused",
    "adafactor",
    "adagrad",
    "rmsprop",
    "sgd",
    "adamw_8bit",
    "adamw_bnb_8bit",
    "ademamix",
    "ademamix_8bit",
    "lion_8bit",
    "lion_32bit",
    "paged_adamw_8bit",
    "paged_adamw_32bit",
    "paged_ademamix_8bit",
    "paged_ademamix_32bit",
    "paged_lion_8bit",
    "paged_lion_32bit",
    "rmsprop_bnb",
    "rmsprop_bnb_8bit",
    "rmsprop_bnb_32bit",
    "adamw_torch_4bit",
    "adamw_torch_8bit",
    "grokadamw",
    "schedule_free_adamw",
    "schedule_free_radam",
    "schedule_free_sgd",
    "stable_adamw",
]
"""Those of transformers that need no settings of their own."""
_FSDP_WORDS = {"full_shard", "shard_grad_op", "auto_wrap", "offload"}
Tracker = Literal["mlflow", "tensorboard", "wandb"]


class TrainConfig(Section):
    """The optimisation."""

    do_train: bool = True
    """Train. `do_train: false` with `do_eval: true` only evaluates `output_dir`."""
    do_eval: bool = False
    """Evaluate after training (`ivcp train`); the pipeline always evaluates."""
    output_dir: LocalPath = "runs/output"
    """Where `ivcp train` writes the adapter directory and its checkpoints."""
    overwrite_output_dir: bool = False
    """Allow a non-empty `output_dir` and start again in it, which removes the earlier run's weights, checkpoints and
    figures before the first step, and nothing that this project did not write."""
    resume_from_checkpoint: PathOrFlag | None = None
    """Checkpoint to continue from, or true for the last one in `output_dir` if there is any. Null continues only a
    run with the same settings that was interrupted; false never."""
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
    """Peak learning rate of the language model or its adapter, and of whatever has none of its own."""
    vision_tower_learning_rate: float | None = Field(None, gt=0)
    """Peak learning rate of the vision tower; null is `learning_rate`."""
    projector_learning_rate: float | None = Field(None, gt=0)
    """Peak learning rate of the projector; null is `learning_rate`."""
    action_decoder_learning_rate: float | None = Field(None, gt=0)
    """Peak learning rate of the action decoder; null is `learning_rate`."""
    lr_scheduler_type: Scheduler = "linear"
    """How the learning rate changes: a scheduler of transformers."""
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
    optim: Optimizer = "adamw_torch_fused"
    """An optimizer of transformers; those behind `sgd` need a package, bitsandbytes mostly."""
    bf16: bool = False
    """bfloat16 mixed precision."""
    fp16: bool = False
    """float16 mixed precision."""
    seed: int = Field(42, ge=0, le=2**32 - 1)
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
    """Checkpoints to keep; older ones are deleted, but never the best one nor the last."""
    save_only_model: bool = False
    """Write checkpoints without optimizer state: smaller, and not resumable."""
    load_best_model_at_end: bool = False
    """End with the checkpoint that is best on the validation split."""
    metric_for_best_model: str = "top1_accuracy"
    """What "best" means: `top1_accuracy` or `loss`; the loss where a stage has no accuracy."""
    early_stopping_steps: int | None = Field(None, ge=1)
    """Stop after this many validations in a row without a better one; null never stops early."""
    plot_loss: bool = False
    """Draw the loss and accuracy curves into the output folder."""
    dataloader_num_workers: int = Field(0, ge=0)
    """Processes that assemble batches; 0 does it in the training process."""
    report_to: tuple[Tracker, ...] = ("mlflow",)
    """Where metrics go besides the log files: mlflow, tensorboard, wandb, or none."""
    run_name: str | None = Field(None, pattern=r"^[^/\\\x00-\x1f]+$", max_length=100)
    """Display name of the run, without slashes: `ivcp run` names a folder by it."""
    deepspeed: FileOrName | None = None
    """DeepSpeed configuration: the path of a JSON file, or one that ships here (z1, z2, z3, z2_offload, z3_offload)."""
    fsdp: str | None = None
    """`full_shard` or `full_shard offload` shards the weights over the processes with FSDP2."""
    ddp_timeout: int = Field(1800, ge=1)
    """Seconds that a process waits for the others."""

    @field_validator("eval_strategy", "save_strategy", mode="before")
    @classmethod
    def _yaml_no(cls, value: Any) -> Any:
        return "no" if value is False else value  # YAML reads a bare `no` as false

    @field_validator("report_to", mode="before")
    @classmethod
    def _as_names(cls, value: Any) -> Any:
        names = as_names(value)
        return tuple(name for name in names if name != "none") if isinstance(names, list | tuple) else names

    @field_validator("fsdp")
    @classmethod
    def _fsdp_words(cls, value: str | None) -> str | None:
        words = set((value or "").replace(",", " ").split())
        if value and (words - _FSDP_WORDS or not words & {"full_shard", "shard_grad_op"}):
            raise ValueError("expected full_shard or full_shard offload")
        return value

    @field_validator("metric_for_best_model")
    @classmethod
    def _without_prefix(cls, value: str) -> str:
        return value.removeprefix("eval_")  # transformers takes both


class LossConfig(Section):
    """What is minimised, and which clips are drawn how often."""

    label_smoothing_factor: float = Field(0.0, ge=0, lt=1)
    """Label smoothing of the classification loss."""
    action_loss: Literal["cross_entropy", "focal"] = "cross_entropy"
    """Cross-entropy, or focal loss, which weighs easy clips down (arXiv:1708.02002)."""
    focal_gamma: float = Field(2.0, ge=0)
    """How far the focal loss weighs easy clips down; 0 is cross-entropy."""
    regression_loss: Literal["mse", "l1", "smooth_l1"] = "mse"
    """With `problem_type: regression`: squared errors, absolute ones, or squared below one standard deviation of the
    training clips and absolute above, which outliers pull less."""
    class_weights: Literal["none", "inverse", "effective_number"] = "none"
    """Weigh classes by 1 / clips, or by the effective number of clips (arXiv:1901.05555)."""
    class_weight_beta: float = Field(0.999, ge=0, lt=1)
    """Beta of the effective number."""
    balanced_sampling: bool = False
    """Draw every class equally often (with replacement) instead of every clip once per epoch."""
    mixup_alpha: float = Field(0.0, ge=0)
    """Mix pairs of clips of one size with a share drawn from Beta(alpha, alpha) (arXiv:1710.09412); 0 mixes none."""


class AugmentationConfig(Section):
    """Random changes of training clips: the same for all frames of a clip, drawn again in every epoch."""

    augment_crop: float = Field(1.0, gt=0, le=1)
    """Crop to a random share of the frame between this and 1, scaled back to the frame's size. 1 crops nothing."""
    augment_flip: float = Field(0.0, ge=0, le=1)
    """Probability of mirroring a clip left to right."""
    augment_no_flip_labels: tuple[str, ...] = ()
    """Class names whose clips are never mirrored (left and right mean something in them)."""
    augment_color_jitter: float = Field(0.0, ge=0, lt=1)
    """Change brightness, contrast and saturation by at most this share."""
    augment_temporal_jitter: bool = False
    """Take a random stored frame around each sampled moment; needs `video_frame_candidates` above 1."""

    @field_validator("augment_no_flip_labels", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return as_names(value)

    @property
    def changes_frames(self) -> bool:
        """Whether training sees other pixels than the prepared ones."""
        return (
            self.augment_crop < 1
            or self.augment_flip > 0
            or self.augment_color_jitter > 0
            or self.augment_temporal_jitter
        )


class SpeedConfig(Section):
    """How the same result is reached with less work."""

    cache_vision_features: bool | None = None
    """Compute the features of a frozen vision tower once and keep them on disk. Null does where nothing speaks
    against it; true is an error where something does."""
    vision_cache_dir: LocalPath | None = None
    """Folder of the kept features; null is beside the prepared clips."""
    vision_cache_max_gigabytes: float = Field(50.0, gt=0)
    """Most disk space of `vision_cache_dir`: the cache entries unused longest are deleted first."""
    tokens_per_batch: int | None = Field(None, ge=1)
    """Tokens of a batch, padding included: clips of like length share a batch of as many as fit. Null takes
    `per_device_train_batch_size` clips."""
    torch_compile: bool = False
    """Compile the language model; worth it where all clips have one length. Needs a C++ compiler (on a GPU: C)."""
    enable_liger_kernel: bool = False
    """Liger's fused kernels; needs the package and a GPU."""
