"""A video language model as the part of a larger module that reads clips, with an adapter around it or without."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ivcp.models.families import accepted_inputs
from ivcp.models.torchvision_compat import register_missing_operators
from ivcp.models.vision.features import encoder_outputs

register_missing_operators()

from transformers import PreTrainedModel  # noqa: E402


def language_model_of(backbone: Any) -> Any:
    """The transformers model itself: what a peft model wraps, or the model as it is.

    peft replaces layers in place, so that the inner model runs with the adapter.
    """
    return backbone if isinstance(backbone, PreTrainedModel) else backbone.get_base_model()


def last_hidden_states(backbone: Any, input_ids: Tensor, attention_mask: Tensor, **vision: Any) -> Tensor:
    """The last hidden states of all tokens, (batch, tokens, hidden_size): no vocabulary logits are computed.

    `vision` holds what else the model's processor made, or, in place of pixels, `vision_features` that the tower made
    of them before.
    """
    if "vision_features" in vision:
        vision["mm_encoder_outputs"] = encoder_outputs(vision.pop("vision_features"))
    base = language_model_of(backbone).base_model
    states: Tensor = base(
        input_ids=input_ids, attention_mask=attention_mask, use_cache=False, **accepted_inputs(base, vision)
    ).last_hidden_state
    return states
