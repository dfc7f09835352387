"""The stages that learn given tokens: `sft` and `pt`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ivcp.data.prepared.sample import Tokens
from ivcp.data.prompts import VIDEO_TAG
from ivcp.records import Message, RowKind
from ivcp.settings import ConfigError
from ivcp.stages.language.stage import LanguageStage
from ivcp.stages.protocol import Collate

if TYPE_CHECKING:
    from ivcp.models.backbone import BackboneModule
    from ivcp.models.positions import RopePositions
    from ivcp.models.processor import Processor
    from ivcp.models.sampled import SampledVideo

log = logging.getLogger(__name__)

_OF_ROWS = ("packing", "neat_packing")
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
    def steady_outputs(self) -> slice:
        """The mean loss."""
        return slice(1)

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The share of tokens that the model finds the likeliest."""
        return ("token_accuracy",)

    @property
    def compared_by(self) -> tuple[str, ...]:
        """Answers that are right, where they are written; else how likely the rows' own ones are."""
        return ("exact_match", "perplexity")

    def metrics(self, predictions: Any, targets: Any) -> dict[str, float]:
        """Over all tokens: the loss, the perplexity, and the share that is right; `targets` are how many there are.

        The loss replaces the mean over batches, which depends on how samples were batched.
        """
        loss, right = (predictions.astype(np.float64) * targets[:, None]).sum(axis=0) / max(targets.sum(), 1)
        perplexity = np.exp(np.minimum(loss, _LARGEST_LOSS))  # a NaN stays one
        return {"loss": float(loss), "perplexity": float(perplexity), "token_accuracy": float(right)}


@dataclass(frozen=True)
class PackingStage(TokenStage):
    """Stages whose samples may share rows."""

    @property
    def packs(self) -> bool:
        """Each token is learned by itself."""
        return True

    @property
    def packs_by_default(self) -> bool:
        """Whether samples share rows where the settings do not say."""
        return False

    @property
    def packs_rows(self) -> bool:
        """Where that is asked for, or usual."""
        wanted = self.config.language.wants_packing
        return self.packs_by_default if wanted is None else wanted

    def collator(
        self, module: BackboneModule, processor: Processor, *, positions: RopePositions | None, training: bool
    ) -> Collate:
        """Whole conversations; in training several of them in a row, where that is asked for.

        Raises:
            ConfigError: it is, and cannot be done.
        """
        from ivcp.models.packing import needs_one_row, why_unpacked
        from ivcp.stages.language.collators import LanguageCollator, PackingCollator

        whole = LanguageCollator(processor, positions)
        if not training or not self.packs_rows:
            return whole
        reason = why_unpacked(module.backbone)
        if reason is None:
            return PackingCollator(whole, self.config.data.cutoff_len, in_one_row=needs_one_row(module.backbone))
        if self.config.language.wants_packing:
            raise ConfigError(f"packing: {reason}; remove it, and set tokens_per_batch to have less padding")
        log.info("each row holds one sample: %s", reason)
        return whole


@dataclass(frozen=True)
class SupervisedFinetuning(PackingStage):
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
        """Which words are learned, and how samples are put into rows."""
        return (*self.data_settings, *_OF_ROWS)

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
class Pretraining(PackingStage):
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
        """How samples are put into rows."""
        return _OF_ROWS

    @property
    def packs_by_default(self) -> bool:
        """As elsewhere: texts are of all lengths."""
        return True

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
