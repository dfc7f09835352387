"""From samples to the batches of the language stages."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence

from ivcp.data.prepared.rows import rows_of
from ivcp.data.prepared.sample import EncodedSample, Sample
from ivcp.inference.generation import left_padded
from ivcp.models.backbone import language_model_of
from ivcp.models.packing import packed
from ivcp.models.positions import RopePositions
from ivcp.models.processor import NO_LABEL, Processor
from ivcp.models.shared_prompts import SHARED_PROMPTS, with_shared_prompts
from ivcp.stages.language.log_probs import count_learned
from ivcp.stages.language.module import WordsModule
from ivcp.stages.language.stage import DESIRABLE, OTHER_ANSWER, REFERENCE, REJECTED

_FILLERS = {"attention_mask": 0, "mm_token_type_ids": 0, "token_labels": NO_LABEL}
"""What stands behind the samples of a row."""


@dataclass(frozen=True)
class LanguageCollator:
    """Whole samples, with `num_learned`, (batch,): how many tokens of each are predicted."""

    processor: Processor
    positions: RopePositions | None = None

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """What `LanguageModule.forward` takes."""
        batch = self.processor.batch(samples, prompts_only=False)
        batch["num_learned"] = count_learned(batch["token_labels"])
        return self.positions(batch) if self.positions else batch


@dataclass(frozen=True)
class PackingCollator:
    """Whole samples, several of them in each row: see `ivcp.models.packing`."""

    whole: LanguageCollator
    row_tokens: int
    in_one_row: bool
    """All samples of a batch share a row, whatever their length."""

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """What `LanguageModule.forward` takes; `num_learned` is of samples, all else that is of tokens is of rows."""
        batch = self.whole(samples)
        batch["token_labels"][:, 0] = NO_LABEL  # no token of its own sample stands before it
        lengths = [len(sample.input_ids) for sample in samples]
        rows = [range(len(samples))] if self.in_one_row else rows_of(lengths, self.row_tokens)
        return packed(batch, rows, fillers=_FILLERS | {"input_ids": self.whole.processor.padding_id})


@dataclass(frozen=True)
class AnswersCollator:
    """Batches with several answers to each prompt: it comes once where answers can share it, as do its media."""

    processor: Processor
    positions: RopePositions | None
    shares_media: bool
    shares_prompts: bool = False

    @classmethod
    def of(cls, module: WordsModule, processor: Processor, positions: RopePositions | None) -> Self:
        """For a module; a model with positions of its own would not find those of shared prompts."""
        own = positions or RopePositions.of(language_model_of(module.backbone))
        return cls(processor, own, module.shares_media, module.shares_prompts)

    def rounds(self, *rounds: Sequence[Sample]) -> dict[str, Any]:
        """The rows of all `rounds`, one after the other, which are samples of the same prompts and media."""
        batch = self._shared(rounds) if self.shares_prompts and len(rounds) > 1 else self._repeated(rounds)
        if all(REFERENCE in sample.columns for sample in rounds[0]):
            batch[REFERENCE] = torch.stack([sample.columns[REFERENCE] for sample in rounds[0]])
        return batch

    def _shared(self, rounds: Sequence[Sequence[Sample]]) -> dict[str, Any]:
        """In the layout of `ivcp.models.shared_prompts`, but for prompts that are too long for it."""
        rows = [sample for samples in rounds for sample in samples]
        media = self.processor.batch_media(rounds[0])
        grids = {  # for the positions of all rows
            name: torch.cat([value] * len(rounds))
            for name, value in media.items()
            if isinstance(value, torch.Tensor) and not name.startswith("pixel_")
        } | {name: value for name, value in media.items() if isinstance(value, bool)}
        batch = self.processor.batch_tokens(rows, prompts_only=False)
        batch = self.positions(batch | grids) if self.positions else batch
        shared = with_shared_prompts(batch, [sample.num_prompt_tokens for sample in rounds[0]])
        return shared | media if SHARED_PROMPTS in shared else self._repeated(rounds)

    def _repeated(self, rounds: Sequence[Sequence[Sample]]) -> dict[str, Any]:
        """With the prompt before each answer."""
        rows = [sample for samples in rounds for sample in samples]
        is_shared = self.shares_media and not any(isinstance(sample, EncodedSample) for sample in rows)
        media = self.processor.batch_media(rounds[0] if is_shared else rows)
        if is_shared:
            times = len(rounds)
            media = {
                name: value if name.startswith("pixel_") or isinstance(value, bool) else torch.cat([value] * times)
                for name, value in media.items()
            }
        batch: dict[str, Any] = self.processor.batch_tokens(rows, prompts_only=False) | media
        return self.positions(batch) if self.positions else batch


@dataclass(frozen=True)
class PairCollator(AnswersCollator):
    """Chosen answers, then rejected ones in the same order."""

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """What modules of pairs take; `num_learned`, (pairs,), is of the chosen answers."""
        rejected = [
            with_answer(sample, np.asarray(sample.columns[REJECTED.name], dtype=np.int64)) for sample in samples
        ]
        batch = self.rounds(samples, rejected)
        # First: transformers counts the samples of a batch by its first entry.
        return {"num_learned": count_learned(batch["token_labels"])[: len(samples)]} | batch


@dataclass(frozen=True)
class TaggedCollator(AnswersCollator):
    """Answers, then each prompt again with another answer: that of its column, or of the batch's next sample.

    Where there is neither, it comes once.
    """

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """What `TaggedModule.forward` takes."""
        following = [*samples[1:], samples[0]]
        others = [
            sample.columns.get(OTHER_ANSWER, other.input_ids[other.num_prompt_tokens :])
            for sample, other in zip(samples, following, strict=True)
        ]
        mismatched = [with_answer(sample, other) for sample, other in zip(samples, others, strict=True)]
        desirable = torch.tensor([bool(sample.columns[DESIRABLE.name]) for sample in samples])
        is_mismatched = len(samples) > 1 or OTHER_ANSWER in samples[0].columns
        batch = self.rounds(samples, mismatched) if is_mismatched else self.rounds(samples)
        return {"is_desirable": desirable} | batch


@dataclass(frozen=True)
class PromptCollator:
    """Prompts to be answered, with the rows' own answers beside them."""

    processor: Processor

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """What `PolicyModule.forward` takes."""
        answers = [torch.from_numpy(sample.input_ids[sample.num_prompt_tokens :]) for sample in samples]
        key = zlib.crc32(" ".join(sample.sample_id for sample in samples).encode())
        return left_padded(self.processor, samples) | {
            "answer_ids": pad_sequence(answers, batch_first=True, padding_value=NO_LABEL),
            "num_learned": torch.tensor([len(answer) for answer in answers]),
            "batch_key": torch.tensor([key]),
        }


def with_answer(sample: Sample, answer: NDArray[np.int64]) -> Sample:
    """The sample's prompt and media with another answer, (tokens,), all of it learned."""
    count = sample.num_prompt_tokens
    return replace(
        sample,
        input_ids=np.concatenate((sample.input_ids[:count], answer)),
        mm_token_type_ids=np.concatenate((sample.mm_token_type_ids[:count], np.zeros(len(answer), dtype=np.int64))),
        loss_mask=np.arange(count + len(answer)) >= count,
    )
