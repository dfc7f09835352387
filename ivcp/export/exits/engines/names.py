"""The engines that `export_engines` names, and what they do; light, for checks that load no model."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ivcp.stages.protocol import ClassifierHead

TRANSFORMERS, VLLM = "transformers", "vllm"

VLLM_MODEL_TYPES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
"""Those whose directory vLLM 0.32 serves with this project's probabilities."""


def states_task(head: ClassifierHead) -> str:
    """vLLM's name for the states that a decoder needs: of all tokens, or of the last one."""
    return "token_embed" if head.reads_vision_states else "embed"
