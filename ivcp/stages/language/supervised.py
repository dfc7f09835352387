"""The stages that learn given tokens: `sft` and `pt`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ivcp.data.prepared.sample import Tokens
from ivcp.data.prompts import VIDEO_TAG
from ivcp.records import Message, RowKind
from ivcp.stages.language.stage import LanguageStage

if TYPE_CHECKING:
    from ivcp.models.processor import Processor, SampledVideo

_LARGEST_LOSS = 80.0
"""Of which the perplexity is still a number that files can hold."""


@dataclass(frozen=True)
class TokenStage(LanguageStage):
    """Stages whose loss is the mean over tokens."""

    @property
    def loss_counts(self) -> str | None:
        """Each token counts once, whatever batch it is in."""
        return "num_learned"

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The share of tokens that the model finds the likeliest."""
        return ("token_accuracy",)

    def metrics(self, predictions: Any, targets: Any) -> dict[str, float]:
        """Over all tokens: the loss, the perplexity, and the share that is right; `targets` are how many there are.

        The loss replaces the mean over batches, which depends on how samples were batched.
        """
        loss, right = (predictions.astype(np.float64) * targets[:, None]).sum(axis=0) / max(targets.sum(), 1)
        perplexity = np.exp(np.minimum(loss, _LARGEST_LOSS))  # a NaN stays one
        return {"loss": float(loss), "perplexity": float(perplexity), "token_accuracy": float(right)}


@dataclass(frozen=True)
class SupervisedFinetuning(TokenStage):
    """`sft`: the model learns to write the answers."""

    @property
    def title(self) -> str:
        """What a model of this stage is."""
        return "Video language model"

    @property
    def principle(self) -> str:
        """How it works."""
        return "the model writes an answer to a conversation with videos"

    @property
    def data_settings(self) -> tuple[str, ...]:
        """Which words are learned."""
        return ("train_on_prompt", "mask_history")

    @property
    def own_settings(self) -> tuple[str, ...]:
        """Which words are learned."""
        return self.data_settings

    def tokenize(self, processor: Processor, messages: Sequence[Message], videos: Sequence[SampledVideo]) -> Tokens:
        """The whole conversation; learned are the answers, or what the settings say."""
        from ivcp.stages.language.conversations import conversation_tokens

        language = self.config.language
        return conversation_tokens(
            processor,
            messages,
            videos,
            train_on_prompt=language.train_on_prompt,
            mask_history=language.mask_history,
        )


@dataclass(frozen=True)
class Pretraining(TokenStage):
    """`pt`: the model learns texts without turns."""

    @property
    def title(self) -> str:
        """What a model of this stage is."""
        return "Video language model"

    @property
    def principle(self) -> str:
        """How it works."""
        return "the model goes on with a text"

    @property
    def own_settings(self) -> tuple[str, ...]:
        """None of them."""
        return ()

    @property
    def rows(self) -> RowKind:
        """Texts."""
        return "texts"

    @property
    def smallest_prompt(self) -> tuple[Message, ...]:
        """A video in a text."""
        return (Message(role="assistant", content=f"{VIDEO_TAG}1"),)

    def prompt_of(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """Nothing: all of it is learned."""
        return ()

    def tokenize(self, processor: Processor, messages: Sequence[Message], videos: Sequence[SampledVideo]) -> Tokens:
        """The text with its media and the token that ends texts; learned is all but media."""
        from ivcp.stages.language.texts import text_tokens

        return text_tokens(processor, "".join(message.content for message in messages), videos)
