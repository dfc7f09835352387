"""A video language model as the part of a larger module that reads clips, with an adapter around it or without."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ivcp.models.families import accepted_inputs
from ivcp.models.positions import PACKED_POSITIONS, ROPE_POSITIONS, finds_positions_by_mask
from ivcp.models.vision.features import encoder_outputs
from ivcp.torchvision_compat import register_missing_operators

register_missing_operators()

from transformers import PreTrainedModel  # noqa: E402


def language_model_of(backbone: Any) -> Any:
    """The transformers model itself: what a peft model wraps, or the model as it is.

    peft replaces layers in place, so that the inner model runs with the adapter.
    """
    return backbone if isinstance(backbone, PreTrainedModel) else backbone.get_base_model()


def right_padded_states(backbone: Any, input_ids: Tensor, attention_mask: Tensor, **vision: Any) -> Tensor:
    """`last_hidden_states` of rows with all padding behind them, whose own states are then arbitrary.

    No token sees what stands behind it, so that a mask would only slow attention down: SDPA takes its causal kernels
    where there is none. Code that came with a model may read it in another way, and is given it; so is a model that
    finds its positions by it (Qwen2.5-Omni), where these do not come with the batch.
    """
    model = language_model_of(backbone)
    is_ours = type(model).__module__.startswith("transformers.")
    needs_mask = not is_ours or (ROPE_POSITIONS not in vision and finds_positions_by_mask(model))
    return last_hidden_states(backbone, input_ids, attention_mask if needs_mask else None, **vision)


def last_hidden_states(backbone: Any, input_ids: Tensor, attention_mask: Tensor | None, **vision: Any) -> Tensor:
    """The last hidden states of all tokens, (batch, tokens, hidden_size): no vocabulary logits are computed.

    `vision` holds what else the model's processor made, or, in place of pixels, `vision_features` that the tower made
    of them before, and the positions of a model that has its own (`ivcp.models.positions`). Rows with several samples
    have positions in any model, and no mask beside them.
    """
    states: Tensor = _outputs(backbone, input_ids, attention_mask, vision).last_hidden_state
    return states


def hidden_states(backbone: Any, input_ids: Tensor, attention_mask: Tensor | None, **vision: Any) -> tuple[Tensor, ...]:
    """The hidden states of all tokens behind each layer, (batch, tokens, hidden_size) each, the embedding's first.

    The last ones are those of `last_hidden_states`.
    """
    outputs = _outputs(backbone, input_ids, attention_mask, vision, output_hidden_states=True)
    return (*outputs.hidden_states[:-1], outputs.last_hidden_state)


def _outputs(
    backbone: Any, input_ids: Tensor, attention_mask: Tensor | None, vision: dict[str, Any], **asked: Any
) -> Any:
    if PACKED_POSITIONS in vision:
        positions = vision.pop(PACKED_POSITIONS)
        vision["position_ids"] = positions[:, 0] if positions.shape[1] == 1 else positions.transpose(0, 1)
        attention_mask = None
    if ROPE_POSITIONS in vision:
        vision["position_ids"] = vision.pop(ROPE_POSITIONS).transpose(0, 1)
    if "vision_features" in vision:
        vision["mm_encoder_outputs"] = encoder_outputs(vision.pop("vision_features"))
    base = language_model_of(backbone).base_model
    return base(
        input_ids=input_ids, attention_mask=attention_mask, use_cache=False, **accepted_inputs(base, vision), **asked
    )


class BackboneModule(nn.Module):
    """A module around a backbone, as stages train it: `forward` of a batch returns an output with a `loss`.

    What a stage adds to the backbone are parameters of the module, so that optimizer, checkpoints and distributed
    wrappers see them.
    """

    accepts_loss_kwargs = False
    """Keeps transformers' Trainer from scaling the mean loss by the number of processes."""

    def __init__(self, backbone: Any) -> None:
        """`backbone` is a transformers video language model, or a peft model around one."""
        super().__init__()
        self.backbone = backbone
        self.numbers: dict[str, Tensor] = {}
        """What training logs beside the loss: numbers of the last batch by their names, (numbers,) each."""

    def keep_start(self) -> None:
        """Called once before training, when the module has the weights that it starts with."""

    @property
    def config(self) -> Any:
        """The backbone's configuration (transformers' Trainer asks the model for it)."""
        return self.backbone.config

    def activation_checkpointing_enable(self, **settings: Any) -> None:
        """Computes activations again in the backward pass instead of keeping them (transformers' Trainer calls it)."""
        model = language_model_of(self.backbone)
        model.activation_checkpointing_enable(**settings)
        # It makes the output of every embedding ask for a gradient, patches included: the backward pass would then go
        # through a frozen vision tower. Only reentrant checkpointing, which nobody uses here, needs that.
        model.disable_input_require_grads()
