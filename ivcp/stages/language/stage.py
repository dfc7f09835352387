"""The stages that train the model to write, and the reward model: what they ask of the data.

The module is light, for validation and preparation ask the stage as well: what needs torch is imported in the methods
that use it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ivcp.data.prepared.sample import Column, Tokens
from ivcp.data.prompts import VIDEO_TAG, PromptError
from ivcp.records import Message, PreparedIndex, RowKind
from ivcp.settings import ConfigError, RunConfig
from ivcp.stages.protocol import Collate, Stage

if TYPE_CHECKING:
    from ivcp.models.backbone import BackboneModule
    from ivcp.models.positions import RopePositions
    from ivcp.models.processor import Processor
    from ivcp.models.sampled import SampledVideo

REJECTED = Column("rejected_ids", pa.list_(pa.int64()), continues_prompt=True)
"""The tokens of the answer that is not preferred, with its end of turn, behind the same prompt."""
DESIRABLE = Column("desirable", pa.int32())
"""1 where the answer is a good one, else 0."""
REFERENCE = "reference_log_probs"
"""Column and entry of a batch, (2,) of a sample: what the reference says of both of its answers, where that is kept."""
OTHER_ANSWER = "other_answer"
"""Column with the tokens of another sample's answer, where each sample has one of its own."""


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
        return tuple(messages[:-1]) if messages and messages[-1].is_answer else tuple(messages)

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

    @property
    def packs(self) -> bool:
        """Whether several samples may share a row while it trains."""
        return False

    def check_settings(self) -> None:
        """Checks that samples can share rows, where that is asked for.

        Raises:
            ConfigError: they cannot.
        """
        if self.config.language.wants_packing and not self.packs:
            raise ConfigError(
                f"packing: stage {self.config.method.stage} has one answer in each row, to be compared; remove it, and "
                "set tokens_per_batch to have less padding"
            )

    def build(self, index: PreparedIndex, processor: Processor) -> BackboneModule:
        """The base model with what trains in it.

        Raises:
            FileNotFoundError: the base model does not exist.
            UnsupportedMethodError: the model cannot be trained as asked.
            UnsupportedModelError: its logits are not what its output layer makes.
        """
        from ivcp.distributed.sharding import sharding_of
        from ivcp.models.adapters import prepare_backbone
        from ivcp.models.load import load_base_model, training_dtype
        from ivcp.stages.language.module import check_head

        config = self.config
        model = load_base_model(
            config.model.required_name, settings=config.model, dtype=training_dtype(config), quantization=config.method
        )
        if self.writes and sharding_of(config.train) != "zero3":  # there no process has the weights to try it with
            check_head(model)
        return self.module(prepare_backbone(model, config.method, writes=self.writes), trains=True)

    def restore(self, directory: Path, backbone: Any, processor: Processor) -> BackboneModule:
        """The module of a directory."""
        return self.module(backbone, trains=False)

    @property
    def writes(self) -> bool:
        """Whether the model's own words are what is trained."""
        return True

    def module(self, backbone: Any, *, trains: bool) -> BackboneModule:
        """The module around a backbone; one that `trains` has the loss of the settings."""
        from ivcp.stages.language.module import LanguageModule

        return LanguageModule(backbone)

    def collator(
        self, module: BackboneModule, processor: Processor, *, positions: RopePositions | None, training: bool
    ) -> Collate:
        """Whole conversations."""
        from ivcp.stages.language.collators import LanguageCollator

        return LanguageCollator(processor, positions)

    @property
    def target_names(self) -> tuple[str, ...]:
        """How many tokens of each sample are predicted."""
        return ("num_learned",)
