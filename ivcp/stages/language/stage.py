"""The stages that train the model to write, and the reward model: what they ask of the data.

The module is light, for validation and preparation ask the stage as well: what needs torch is imported in the methods
that use it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ivcp.data.prepared.sample import Column, Tokens
from ivcp.data.prompts import VIDEO_TAG, PromptError
from ivcp.records import Clip, Message, RowKind
from ivcp.settings import RunConfig
from ivcp.stages.protocol import Stage

if TYPE_CHECKING:
    from ivcp.models.processor import Processor, SampledVideo

REJECTED = Column("rejected_ids", pa.list_(pa.int64()), continues_prompt=True)
"""The tokens of the answer that is not preferred, with its end of turn, behind the same prompt."""
DESIRABLE = Column("desirable", pa.int32())
"""1 where the answer is a good one, else 0."""


@dataclass(frozen=True)
class LanguageStage(Stage):
    """What all of them share: they read conversations, and learn answers."""

    config: RunConfig

    @property
    def rows(self) -> RowKind:
        """Conversations with an answer."""
        return "conversations"

    @property
    def reads_answers(self) -> bool:
        """Answers are what is learned."""
        return True

    def prompt_of(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """The conversation in front of its last answer."""
        return tuple(messages[:-1]) if messages and messages[-1].role == "assistant" else tuple(messages)

    def ask(self, text: str, *, system: Sequence[Message]) -> tuple[Message, ...]:
        """`text`, with `<video>` before it where it has none.

        Raises:
            PromptError: it has several.
        """
        if text.count(VIDEO_TAG) > 1:
            raise PromptError(f"{VIDEO_TAG} stands {text.count(VIDEO_TAG)} times: one video is asked about")
        content = text if VIDEO_TAG in text else f"{VIDEO_TAG}{text}"
        return (*system, Message(role="user", content=content))

    @property
    def smallest_prompt(self) -> tuple[Message, ...]:
        """A video and a short answer."""
        return (Message(role="user", content=VIDEO_TAG), Message(role="assistant", content="1"))

    @property
    def token_settings(self) -> tuple[str, ...]:
        """All that it reads: which words are learned."""
        return self.data_settings

    def tokenize(self, processor: Processor, messages: Sequence[Message], videos: Sequence[SampledVideo]) -> Tokens:
        """The whole conversation; learned is its last answer."""
        from ivcp.stages.language.conversations import conversation_tokens

        return conversation_tokens(processor, messages, videos, mask_history=True)


@dataclass(frozen=True)
class SupervisedFinetuning(LanguageStage):
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
class PairStage(LanguageStage):
    """Stages that compare a chosen answer with a rejected one."""

    @property
    def rows(self) -> RowKind:
        """Conversations with two answers."""
        return "pairs"

    @property
    def columns(self) -> tuple[Column, ...]:
        """The rejected answer's tokens."""
        return (REJECTED,)

    def tokenize_clip(
        self, processor: Processor, clip: Clip, videos: Sequence[SampledVideo]
    ) -> tuple[Tokens, Mapping[str, Any]]:
        """The conversation with the chosen answer, and the rejected one's tokens."""
        assert clip.rejected is not None
        chosen = self.tokenize(processor, clip.messages, videos)
        other = (*clip.messages[:-1], Message(role="assistant", content=clip.rejected))
        rejected = self.tokenize(processor, other, videos)
        return chosen, {REJECTED.name: rejected.input_ids[rejected.num_prompt_tokens :].tolist()}


@dataclass(frozen=True)
class RewardModelling(PairStage):
    """`rm`: a value head learns which of two answers is the better one."""

    @property
    def title(self) -> str:
        """What a model of this stage is."""
        return "Reward model"

    @property
    def principle(self) -> str:
        """How it works."""
        return "a linear layer makes a number of the last hidden state of an answer: more is better"


@dataclass(frozen=True)
class PreferenceOptimization(PairStage):
    """`dpo`: the model learns to write chosen answers rather than rejected ones."""

    @property
    def title(self) -> str:
        """What a model of this stage is."""
        return "Video language model"

    @property
    def principle(self) -> str:
        """How it works."""
        return "the model learned to prefer one of two answers to the other"


@dataclass(frozen=True)
class TaggedAnswers(LanguageStage):
    """`kto`: the model learns from answers of which each is desirable or not."""

    @property
    def title(self) -> str:
        """What a model of this stage is."""
        return "Video language model"

    @property
    def principle(self) -> str:
        """How it works."""
        return "the model learned from desirable and undesirable answers"

    @property
    def rows(self) -> RowKind:
        """Conversations whose answer has a tag."""
        return "tags"

    @property
    def columns(self) -> tuple[Column, ...]:
        """The tag."""
        return (DESIRABLE,)

    def values(self, clip: Clip) -> dict[str, Any]:
        """The tag."""
        return {DESIRABLE.name: int(bool(clip.desirable))}


@dataclass(frozen=True)
class Pretraining(LanguageStage):
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
    def rows(self) -> RowKind:
        """Texts."""
        return "texts"

    def prompt_of(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """Nothing: all of it is learned."""
        return ()
