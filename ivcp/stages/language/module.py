"""A video language model that learns to write, in one module with its loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ivcp.models.backbone import BackboneModule, language_model_of, last_hidden_states, right_padded_states
from ivcp.models.families import UnsupportedModelError
from ivcp.models.packing import PROBED, few_layers, is_alike, plain_ids
from ivcp.models.shared_prompts import SHARED_PROMPTS, answer_states, keeps_answers_apart
from ivcp.models.vision.features import has_pixels, shared_features, takes_features
from ivcp.stages.language.log_probs import capped_logits, count_learned, token_log_probs, tokens_right
from ivcp.torchvision_compat import register_missing_operators

register_missing_operators()

from transformers.utils import ModelOutput  # noqa: E402


@dataclass
class LanguageOutput(ModelOutput):  # type: ignore[misc]
    """`loss` is a scalar; `logits` are numbers of each sample, (batch, numbers), which the stage makes metrics of."""

    loss: Tensor | None = None
    logits: Tensor | None = None


class WordsModule(BackboneModule):
    """A module that knows how likely its backbone, or another one, finds words."""

    @property
    def shares_prompts(self) -> bool:
        """Whether answers to the same prompt can share its states."""
        return keeps_answers_apart(self.backbone)

    @property
    def shares_media(self) -> bool:
        """Whether rows with the same media can share one pass of the vision tower."""
        return takes_features(language_model_of(self.backbone))

    def log_probs_of(
        self, backbone: Any, input_ids: Tensor, attention_mask: Tensor, token_labels: Tensor, **vision: Any
    ) -> Tensor:
        """What `token_log_probs` gives by `backbone`, this module's own or another one's."""
        states = answer_states(backbone, input_ids, attention_mask, **vision)
        return self._log_probs(backbone, states, token_labels)

    def with_features(self, backbone: Any, vision: Mapping[str, Any], *, times: int) -> dict[str, Any]:
        """`vision` with features in place of pixels, where the rows of a batch are `times` the same media, or have
        their prompts in common."""
        if not has_pixels(vision) or not self.shares_media:
            return dict(vision)
        shared = {name: vision[name] for name in (SHARED_PROMPTS,) if name in vision}
        others = {name: value for name, value in vision.items() if name not in shared}
        return shared_features(language_model_of(backbone), others, times=1 if shared else times) | shared

    def _log_probs(self, backbone: Any, states: Tensor, token_labels: Tensor) -> Tensor:
        softcap = _softcap_of(language_model_of(backbone))
        return token_log_probs(states, token_labels, _head_of(backbone), softcap=softcap)


class LanguageModule(WordsModule):
    """Learns tokens: the loss is the mean cross-entropy of all learned tokens of a batch."""

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_labels: Tensor,
        num_learned: Tensor | None = None,
        **vision: Any,
    ) -> LanguageOutput:
        """The loss; and of each sample, but in training, its mean loss and the share of tokens that are right.

        `input_ids`, `attention_mask` and `token_labels` are (batch, tokens), right-padded; `vision` is what
        `last_hidden_states` takes. `num_learned`, (batch,), is for who weighs the losses of several batches.
        """
        states = right_padded_states(self.backbone, input_ids, attention_mask, **vision)
        totals, counts = self._log_probs(self.backbone, states, token_labels).sum(dim=1), count_learned(token_labels)
        loss = -totals.sum() / counts.sum().clamp(min=1)
        if self.training:
            return LanguageOutput(loss=loss)
        right = tokens_right(states, token_labels, _head_of(self.backbone)).sum(dim=1)
        return LanguageOutput(loss=loss, logits=torch.stack((-totals, right), dim=1) / counts.clamp(min=1).unsqueeze(1))


@torch.no_grad()
def check_head(backbone: Any) -> None:
    """Checks that a model's logits are those that losses are made of: its output layer's, with a soft cap or without.

    Some models multiply them (Granite, Cohere). The first layers are run on a few tokens.

    Raises:
        UnsupportedModelError: they are not.
    """
    model = language_model_of(backbone)
    ids = torch.tensor([plain_ids(model)[:PROBED]], device=model.device)
    was_training = backbone.training
    backbone.eval()
    try:
        with few_layers(model):
            own = model(input_ids=ids, use_cache=False).logits
            made = capped_logits(last_hidden_states(backbone, ids, None), _head_of(backbone), _softcap_of(model))
    finally:
        backbone.train(was_training)
    if not is_alike(made.to(own.dtype), own):
        raise UnsupportedModelError(
            f"{type(model).__name__} does more with the numbers of its output layer than to cap them, which losses "
            "here would leave out: take a model of another family, such as Qwen3, Llama or Qwen3-VL"
        )


def _head_of(backbone: Any) -> Any:
    return language_model_of(backbone).get_output_embeddings()


def _softcap_of(model: Any) -> float | None:
    found: float | None = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    return found
