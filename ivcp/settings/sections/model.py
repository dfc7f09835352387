"""Settings of the base model, and of what is trained of it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from ivcp.settings.places import LocalPath, Model, Trained
from ivcp.settings.sections.section import Section


class ModelConfig(Section):
    """The base model."""

    model_name_or_path: Model | None = None
    """The base model: the path of a local model directory, the id of a model on the Hugging Face hub, an s3:// prefix,
    or a version of MLflow's registry (models:/name@alias, models:/name/3)."""
    model_revision: str = "main"
    """Branch, tag or commit of a hub model."""
    cache_dir: LocalPath | None = None
    """Where models of the Hugging Face hub are kept; null is its default. What comes from elsewhere is kept in
    IVCP_CACHE_DIR."""
    trust_remote_code: bool = False
    """Run modelling code that comes with the model."""
    flash_attn: Literal["auto", "disabled", "sdpa", "fa2"] = "auto"
    """Attention implementation: transformers' choice, eager, PyTorch SDPA, or FlashAttention-2."""
    disable_gradient_checkpointing: bool = False
    """Keep activations instead of computing them again in the backward pass: faster, more memory."""

    @property
    def required_name(self) -> str:
        """Path, hub id or address of the base model.

        Raises:
            ValueError: it is not set.
        """
        if self.model_name_or_path is None:
            raise ValueError("model_name_or_path is not set: give the path of a model directory or a hub id")
        return self.model_name_or_path


class MethodConfig(Section):
    """What is trained of the base model."""

    stage: str = "action_cls"
    """Training stage: what is asked of the data and what is minimised."""
    finetuning_type: Literal["lora", "full", "freeze"] = "lora"
    """Train LoRA matrices, all weights of the language model, or only its last layers (`freeze`)."""
    freeze_trainable_layers: int = 2
    """Layers that `freeze` trains: the last n, the first n where negative, none but decoder and token row for 0."""
    adapter_name_or_path: Trained | None = None
    """Adapter directory to start from, evaluate or export: a path, an s3:// prefix, or a version of MLflow's
    registry."""
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

    @field_validator("lora_target", mode="before")
    @classmethod
    def _join_names(cls, value: Any) -> Any:
        return ",".join(map(str, value)) if isinstance(value, list) else value

    @property
    def resolved_lora_alpha(self) -> int:
        """LoRA's alpha with its default applied."""
        return self.lora_alpha if self.lora_alpha is not None else 2 * self.lora_rank
