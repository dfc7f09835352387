"""The action classifier: a video language model, the action token's row, and the ActionDecoder, in one module."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ivcp.distributed.weights import gathered
from ivcp.models.backbone import BackboneModule, language_model_of, last_hidden_states
from ivcp.models.backbone_files import ModelFilesError
from ivcp.models.processor import NO_LABEL
from ivcp.records import Labels
from ivcp.stages.action_cls.decoder import ActionDecoder
from ivcp.stages.action_cls.target_losses import plain_loss
from ivcp.torchvision_compat import register_missing_operators

register_missing_operators()

from transformers.utils import ModelOutput  # noqa: E402

Loss = Callable[[Tensor, Tensor], Tensor]
"""Of logits, (batch, num_classes), and labels: ids, (batch,), or probabilities, (batch, num_classes). Where a clip has
another label than one class: as `ivcp.stages.action_cls.target_losses` has them."""


@dataclass
class ActionOutput(ModelOutput):  # type: ignore[misc]
    """`loss` is a scalar, where labels were given; `logits` is (batch, num_classes)."""

    loss: Tensor | None = None
    logits: Tensor | None = None


class ActionClassifier(BackboneModule):
    """Classifies a clip by the language model's last hidden state at the action token.

    The token's row replaces the embedding's output at the token by forward hooks: the token's id may lie behind the
    embedding's end, and the embedding itself stays as it is.

    Args:
        backbone: a transformers video language model, or a peft model around one.
        decoder: maps the state to class logits.
        labels: the classes of the logits.
        action_token_id: id of the action token; it stands exactly once in every row of `input_ids`.
        action_token_is_new: the backbone has never seen the token, so that its row starts at the embedding's mean.
        training_loss: what training minimises; null is what evaluation always takes, cross-entropy of one class.
        token_loss_weight: of the language-model loss on the answer, where a batch has `token_labels`.
    """

    def __init__(
        self,
        backbone: Any,
        decoder: ActionDecoder,
        *,
        labels: Labels,
        action_token_id: int,
        action_token_is_new: bool = True,
        training_loss: Loss | None = None,
        token_loss_weight: float = 0.0,
    ) -> None:
        super().__init__(backbone)
        self.decoder = decoder
        self.labels = labels
        self.action_token_id = action_token_id
        self.plain_loss: Loss = plain_loss(labels)
        self.training_loss = training_loss or self.plain_loss
        self.token_loss_weight = token_loss_weight
        embedding = self.backbone.get_input_embeddings()
        with gathered([embedding.weight]):
            row = initial_row(embedding.weight, None if action_token_is_new else action_token_id)
        self.action_token_row = nn.Parameter(row)
        self._ids: Tensor | None = None
        embedding.register_forward_pre_hook(self._hide_action_token)
        embedding.register_forward_hook(self._insert_row)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor | None = None,
        token_labels: Tensor | None = None,
        **vision: Any,
    ) -> ActionOutput:
        """Class logits of a batch, and the mean loss where `labels`, (batch,), are given; of several classes or heads
        (batch, classes or heads).

        `input_ids` and `attention_mask` are (batch, tokens), right-padded; `vision` is what `last_hidden_states` takes.
        `token_labels`, (batch, tokens), repeats the answer's ids behind the action token and is -100 elsewhere; only
        training reads it.
        """
        states = last_hidden_states(self.backbone, input_ids, attention_mask, **vision)
        at_action = self._at_action(states, input_ids)
        if self.decoder.reads_vision_states:
            logits = self.decoder(at_action, states, vision["mm_token_type_ids"] != 0).float()
        else:
            logits = self.decoder(at_action).float()
        if labels is None:
            return ActionOutput(logits=logits)
        loss = (self.training_loss if self.training else self.plain_loss)(logits, labels)
        if self.training and token_labels is not None:
            loss = loss + self.token_loss_weight * self._token_loss(states, token_labels)
        return ActionOutput(loss=loss, logits=logits)

    def action_states(self, input_ids: Tensor, attention_mask: Tensor, **vision: Any) -> Tensor:
        """The last hidden state at the action token, (batch, hidden_size)."""
        return self._at_action(last_hidden_states(self.backbone, input_ids, attention_mask, **vision), input_ids)

    def set_row(self, row: Tensor, *, source: str) -> None:
        """Takes the token's row, (hidden_size,), that `source` holds.

        Raises:
            ModelFilesError: the model's embedding has another width.
        """
        if row.shape != self.action_token_row.shape:
            raise ModelFilesError(
                f"{source}: the action token's row has {row.numel()} values, the model's embedding has "
                f"{self.action_token_row.numel()}: adapter and base model do not belong together"
            )
        with torch.no_grad():
            self.action_token_row.copy_(row)

    def _at_action(self, states: Tensor, input_ids: Tensor) -> Tensor:
        positions = (input_ids == self.action_token_id).int().argmax(dim=1)
        return states[torch.arange(positions.shape[0], device=states.device), positions]

    def _token_loss(self, states: Tensor, token_labels: Tensor) -> Tensor:
        """Mean cross-entropy of the answer's tokens; vocabulary logits exist only where one is predicted."""
        wanted = token_labels[:, 1:]
        here = wanted != NO_LABEL
        logits = language_model_of(self.backbone).get_output_embeddings()(states[:, :-1][here])
        return functional.cross_entropy(logits.float(), wanted[here])

    def _hide_action_token(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        self._ids = inputs[0]
        return (inputs[0].masked_fill(inputs[0] == self.action_token_id, 0), *inputs[1:])

    def _insert_row(self, _: nn.Module, inputs: tuple[Tensor, ...], embedded: Tensor) -> Tensor:
        assert self._ids is not None
        here = (self._ids == self.action_token_id).unsqueeze(-1)
        self._ids = None
        return torch.where(here, self.action_token_row.to(embedded.dtype), embedded)


def initial_row(embedding: Tensor, known_id: int | None) -> Tensor:
    """A float32 start for a token's row, (hidden_size,): the row of `known_id`, or the mean for a new token.

    `embedding` is (num_tokens, hidden_size). The mean puts a new token where the others are (Hewitt, "Initializing
    New Word Embeddings for Pretrained Language Models", 2021), the same in every run; rows that pad the vocabulary
    are no start, since nothing ever trained them.
    """
    row = embedding.mean(dim=0) if known_id is None else embedding[known_id]
    return row.detach().float().clone()
