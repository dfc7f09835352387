"""A model that says how good answers are, with its batches."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import torch

from ivcp.data.prepared.sample import Sample
from ivcp.data.prompts import PromptError
from ivcp.inference.finite import check_finite_outputs
from ivcp.models.families import media_token_ids
from ivcp.serving.batching import Batcher
from ivcp.serving.decoding import TooManyTokensError
from ivcp.serving.http.timings import Timings
from ivcp.serving.language.served_language import ServedLanguage
from ivcp.serving.settings import ServerSettings
from ivcp.stages.language.scores import scores_of


class ServedScorer(ServedLanguage):
    """A model that gives conversations with an answer a number: more is better."""

    reads_answers = True

    def start(self, settings: ServerSettings) -> None:
        """Makes its batches."""
        self._batcher = Batcher(
            self._scores,
            max_tokens=settings.max_batch_tokens,
            max_wait_seconds=settings.max_batch_wait_ms / 1000,
            name=self.source.name,
        )

    @property
    def num_waiting(self) -> int:
        """Conversations that are decoded and wait for a batch."""
        return self._batcher.num_waiting

    def sample_of_text(self, text: str, name: str) -> Sample:
        """A conversation that its sender has rendered, with the tokens of turns in it.

        Raises:
            PromptError: there is nothing in it, or a token that stands for a medium.
        """
        processor = self.source.model.processor.processor
        ids = np.array(processor.tokenizer(text, add_special_tokens=False)["input_ids"])
        if len(ids) == 0:
            raise PromptError(f"{name} is empty: expected what the model's chat template makes of one")
        shown = np.intersect1d(ids, media_token_ids(processor))
        if len(shown):
            token = processor.tokenizer.convert_ids_to_tokens(int(shown[0]))
            raise PromptError(f"{name} holds {token}, which stands for a medium: send turns, with media as parts")
        none = np.zeros(len(ids), dtype=np.int64)
        return Sample(
            input_ids=ids.astype(np.int64),
            mm_token_type_ids=none,
            loss_mask=none.astype(np.bool_),
            num_prompt_tokens=len(ids),
            sample_id=name,
            source="",
            media=(),
        )

    async def score(self, sample: Sample, timings: Timings) -> float:
        """How good the answer of a conversation is.

        Raises:
            TooManyTokensError: it is longer than the model's context.
            NonFiniteError: the model's number is none.
            ModelChangedError: its weights were written over.
        """
        tokens = len(sample.input_ids)
        if self.context_tokens is not None and tokens > self.context_tokens:
            raise TooManyTokensError(
                f"{sample.sample_id} has {tokens} tokens, the model's context {self.context_tokens}: shorten it"
            )
        computed = await asyncio.wrap_future(self._batcher.submit(sample))
        self.check_unchanged()
        timings.add("queue", computed.queue_seconds)
        timings.add("model", computed.model_seconds)
        timings.batch_sizes.append(computed.batch_size)
        check_finite_outputs(computed.logits.unsqueeze(0), lambda _: sample.sample_id, source=self.source.name)
        return float(computed.logits)

    def try_sample(self, sample: Sample) -> None:
        """Scores it."""
        self._batcher.submit(sample).result()

    def finish(self) -> None:
        """Computes what was handed in, and ends its thread."""
        self._batcher.close()

    def _scores(self, samples: Sequence[Sample]) -> torch.Tensor:
        """Of each sample, (samples, 1), float32 on the CPU."""
        return scores_of(self.source.model, samples).unsqueeze(1)
