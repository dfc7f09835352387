"""The part of the schema that is about training: base model, method, optimisation, losses, augmentation, speed.

`components.config` puts the sections of the whole schema together.
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


DecoderType = Literal["linear", "mlp", "transformer", "transformer_no_vision"]
SweepDecoderType = Literal["linear", "mlp"]


class MethodConfig(Section):
    """What is trained, and how a clip becomes class logits."""

    stage: Literal["action_cls", "sft", "pt", "rm", "ppo", "dpo", "kto"] = "action_cls"
    """Training stage. Other stages of LLaMA-Factory are read, and refused by the training step."""
    finetuning_type: Literal["lora", "full", "freeze"] = "lora"
    """Train LoRA matrices, all weights of the language model, or only its last layers (`freeze`)."""
    freeze_trainable_layers: int = 2
    """Layers that `freeze` trains: the last n, the first n where negative, none but decoder and token row for 0."""
    head_sweep: bool = False
    """With `freeze` and `freeze_trainable_layers: 0`: train many decoders at once on states computed once."""
    head_sweep_decoder_types: tuple[SweepDecoderType, ...] = Field(("linear", "mlp"), min_length=1)
    """Decoder types that a head sweep tries, in place of `action_decoder_type`."""
    head_sweep_learning_rates: tuple[float, ...] = Field((3e-4, 1e-3, 3e-3, 1e-2), min_length=1)
    """Peak learning rates that a head sweep tries."""
    head_sweep_weight_decays: tuple[float, ...] = Field((0.0, 0.1), min_length=1)
    """Weight decays that a head sweep tries."""
    head_sweep_seeds: int = Field(2, ge=1)
    """Initialisations that a head sweep tries of each combination."""
    head_sweep_epochs: int = Field(50, ge=1)
    """Passes over the training states of a head sweep."""
    adapter_name_or_path: str | None = None
    """Adapter directory to evaluate, export or serve."""
    lora_rank: int = Field(8, ge=1)
    """Rank of the LoRA matrices."""
    lora_alpha: int | None = Field(None, ge=1)
    """LoRA's scaling numerator; null is twice the rank."""
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout in front of the LoRA matrices."""
    lora_target: str = "all"
    """`all` linear layers of what is not frozen, comma-separated names of such layers, or a regular expression over
    full module names (anything that is not a plain list of names)."""
    quantization_bit: Literal[4, 8] | None = None
    """Quantize the frozen weights with bitsandbytes (QLoRA, arXiv:2305.14314). Needs `finetuning_type: lora`."""
    quantization_type: Literal["nf4", "fp4"] = "nf4"
    """Data type of 4-bit weights."""
    double_quantization: bool = True
    """Quantize the constants of 4-bit weights too."""
    use_rslora: bool = False
    """Scale LoRA by alpha / sqrt(rank) (rank-stabilised LoRA, arXiv:2312.03732)."""
    use_dora: bool = False
    """Weight-decomposed LoRA (arXiv:2402.09353)."""
    freeze_vision_tower: bool = True
    """Leave the vision tower untouched."""
    freeze_multi_modal_projector: bool = True
    """Leave the projector between vision tower and language model untouched."""
    num_action_classes: int | None = Field(None, ge=2)
    """Number of classes. Null counts the labels; a number that disagrees with the labels is an error."""
    action_decoder_type: DecoderType = "linear"
    """Classifier on the hidden state at the action token: one linear layer, two with GELU, or transformer layers
    over the token's state, with the clip's own vision tokens or without."""
    action_decoder_hidden_size: int | None = Field(None, ge=1)
    """Width of the MLP and transformer decoders; null is the language model's hidden size."""
    action_decoder_num_transformer_layers: int = Field(2, ge=1)
    """Layers of the transformer decoders."""
    action_decoder_num_heads: int = Field(8, ge=1)
    """Attention heads of the transformer decoders."""
    action_decoder_dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout inside the MLP and transformer decoders."""
    action_decoder_path: str | None = None
    """Directory or `action_decoder.safetensors` file to start the decoder from; null starts it at random."""
    action_token: str = Field("<ACTION>", min_length=3)
    """The special token whose hidden state is classified. It stands once in every sample."""
    action_token_lr_scale: float = Field(0.1, ge=0)
    """Learning rate of the action token's embedding row, as a share of `learning_rate`."""
    action_cls_token_loss_weight: float = Field(0.0, ge=0)
    """Weight of the language-model loss on the answer behind the action token. 0 computes nothing behind it."""

    @field_validator("head_sweep_decoder_types", "head_sweep_learning_rates", "head_sweep_weight_decays", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(v.strip() for v in value.split(",") if v.strip())
        return (value,) if isinstance(value, float | int) else value

    @field_validator("lora_target", mode="before")
    @classmethod
    def _join_names(cls, value: Any) -> Any:
        return ",".join(value) if isinstance(value, list) else value

    @property
    def resolved_lora_alpha(self) -> int:
        """LoRA's alpha with its default applied."""
        return self.lora_alpha if self.lora_alpha is not None else 2 * self.lora_rank


class TrainConfig(Section):
    """The optimisation."""

    do_train: bool = True
    """Train. `do_train: false` with `do_eval: true` only evaluates `output_dir`."""
    do_eval: bool = False
    """Evaluate after training (`ivcp train`); the pipeline always evaluates."""
    output_dir: str = "runs/output"
    """Where `ivcp train` writes the adapter directory and its checkpoints."""
    overwrite_output_dir: bool = False
    """Allow a non-empty `output_dir` and start again in it, which removes the earlier run's checkpoints."""
    resume_from_checkpoint: str | bool | None = None
    """Checkpoint to continue from, or true for the last one in `output_dir` if there is any. Null goes on only with a
    run of the same settings that did not come to its end; false never."""
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
    optim: str = "adamw_torch_fused"
    """An optimizer of transformers."""
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
    """Checkpoints to keep; older ones are deleted, but never the best one nor the last."""
    save_only_model: bool = False
    """Write checkpoints without optimizer state: smaller, and not resumable."""
    load_best_model_at_end: bool = False
    """End with the checkpoint that is best on the validation split."""
    metric_for_best_model: str = "top1_accuracy"
    """What "best" means."""
    early_stopping_steps: int | None = Field(None, ge=1)
    """Stop after this many validations in a row without a better one; null never stops early."""
    plot_loss: bool = False
    """Draw the loss and accuracy curves into the output folder."""
    dataloader_num_workers: int = Field(0, ge=0)
    """Processes that assemble batches; 0 does it in the training process."""
    report_to: tuple[str, ...] = ("mlflow",)
    """Where metrics go besides the log files: mlflow, tensorboard, wandb, or none."""
    run_name: str | None = None
    """Display name of the run."""
    deepspeed: str | None = None
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
        names = value.split(",") if isinstance(value, str) else (value or ())
        return tuple(name.strip() for name in names if name.strip() != "none")


class LossConfig(Section):
    """What is minimised, and which clips are drawn how often."""

    label_smoothing_factor: float = Field(0.0, ge=0, lt=1)
    """Label smoothing of the classification loss."""
    action_loss: Literal["cross_entropy", "focal"] = "cross_entropy"
    """Cross-entropy, or focal loss, which weighs easy clips down (arXiv:1708.02002)."""
    focal_gamma: float = Field(2.0, ge=0)
    """How far the focal loss weighs easy clips down; 0 is cross-entropy."""
    class_weights: Literal["none", "inverse", "effective_number"] = "none"
    """Weigh classes by 1 / clips, or by the effective number of clips (arXiv:1901.05555)."""
    class_weight_beta: float = Field(0.999, ge=0, lt=1)
    """Beta of the effective number."""
    balanced_sampling: bool = False
    """Draw every class equally often (with replacement) instead of every clip once per epoch."""
    mixup_alpha: float = Field(0.0, ge=0)
    """Mix pairs of clips of one size with a share drawn from Beta(alpha, alpha) (arXiv:1710.09412); 0 mixes none."""


class AugmentationConfig(Section):
    """Random changes of training clips: the same for all frames of a clip, drawn anew in every epoch."""

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
        return tuple(v.strip() for v in value.split(",") if v.strip()) if isinstance(value, str) else (value or ())

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
    vision_cache_dir: str | None = None
    """Folder of the kept features; null is beside the prepared clips."""
    vision_cache_max_gigabytes: float = Field(50.0, gt=0)
    """Most disk space of `vision_cache_dir`: the sets unused longest go first."""
    tokens_per_batch: int | None = Field(None, ge=1)
    """Tokens of a batch, padding included: clips of like length share a batch of as many as fit. Null takes
    `per_device_train_batch_size` clips."""
    torch_compile: bool = False
    """Compile the language model; worth it where all clips have one length. Needs a C++ compiler (on a GPU: C)."""
    enable_liger_kernel: bool = False
    """Liger's fused kernels; needs the package and a GPU."""


class LaunchConfig(Section):
    """Where training runs: in the step itself, or as a job of several nodes that the step starts and follows."""

    train_launcher: Literal["inline", "trainjob"] = "inline"
    """Train in the step itself (`inline`), or in a Kubeflow TrainJob that the step starts and follows (`trainjob`)."""
    train_nodes: int = Field(1, ge=1)
    """Nodes of a `trainjob`; every one is a pod."""
    train_processes_per_node: int = Field(1, ge=1)
    """Training processes on each node, one per GPU; torchrun starts them."""
    train_queue: str | None = None
    """Kueue's local queue that a `trainjob` waits in; null starts it at once."""
    train_namespace: str = "ivcp"
    """Kubernetes namespace of a `trainjob` and its TrainingRuntime."""
    train_runtime: str = "ivcp-torch"
    """TrainingRuntime of a `trainjob`: image, volumes, secrets and tolerations of its pods."""
    train_max_restarts: int = Field(3, ge=0)
    """How often a `trainjob` that failed is started again, from its last checkpoint; wrong settings never are."""
    train_start_seconds: float = Field(1800.0, gt=0)
    """How long the nodes and processes of a training wait for each other at its start."""
    checkpoints_uri: str | None = None
    """s3:// prefix or shared folder that checkpoints are copied to as they are written, and resumed from on an empty
    disk; each run has a folder in it. A `trainjob` needs it."""

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Self:
        if self.train_launcher == "trainjob" and self.checkpoints_uri is None:
            raise ValueError(
                "train_launcher = trainjob needs checkpoints_uri: an s3:// prefix or a folder that this step and the "
                "job's pods reach, for settings, checkpoints and the result"
            )
        if self.train_launcher == "inline" and self.train_nodes > 1:
            raise ValueError(
                f"train_nodes = {self.train_nodes} with train_launcher: inline, which trains on one node; "
                "set train_launcher: trainjob"
            )
        return self

    @property
    def num_processes(self) -> int:
        """Processes of the training, on all nodes."""
        return self.train_nodes * self.train_processes_per_node
