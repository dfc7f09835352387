"""The answers that a model writes to the prompts of a split, beside those of the rows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Subset

from ivcp.data.prepared.reader import PreparedSamples
from ivcp.data.prepared.sample import Sample
from ivcp.evaluation.predict import Disturbed
from ivcp.evaluation.text_metrics import TextScore, measure_texts, score_text
from ivcp.inference.generation import Writer
from ivcp.inference.loop import Samples, batches_of
from ivcp.records.language_evaluation import GeneratedText, GenerationMetrics
from ivcp.settings import GenerationConfig
from ivcp.stages.loaded_model import LoadedModel


@dataclass(frozen=True)
class Answer:
    """What a model wrote about one sample."""

    position: int
    """Of the sample in its split."""
    sample_id: str
    source: str
    prompt: str
    """As the model reads it, with special tokens."""
    question: str
    """The prompt for people: without special tokens and media."""
    written: str
    reference: str
    is_cut: bool

    @cached_property
    def score(self) -> TextScore:
        """How near it is to its reference."""
        return score_text(self.written, self.reference)

    def line(self) -> GeneratedText:
        """Its line in `generated_predictions.jsonl`."""
        return GeneratedText(prompt=self.prompt, predict=self.written, label=self.reference)


@dataclass(frozen=True)
class SplitAnswers:
    """All answers of a split, in its order."""

    answers: tuple[Answer, ...]
    num_missing: int
    """Clips that could not be decoded."""
    num_batches: int
    seconds: float

    def metrics(self, settings: GenerationConfig) -> GenerationMetrics | None:
        """How near they are to their references; null where there are none."""
        if not self.answers and not self.num_missing:
            return None
        written, references = [a.written for a in self.answers], [a.reference for a in self.answers]
        return GenerationMetrics(
            text=measure_texts(written, references, num_missing=self.num_missing),
            num_answers=len(self.answers) + self.num_missing,
            num_cut=sum(answer.is_cut for answer in self.answers),
            how=in_words(settings),
            seconds=self.seconds,
        )


def write_answers(
    model: LoadedModel,
    samples: Samples,
    settings: GenerationConfig,
    *,
    batch_size: int,
    seed: int,
    num_missing: int = 0,
    num_workers: int = 0,
) -> SplitAnswers:
    """Lets a model answer the samples whose own answers are ones that it should write."""
    started = time.monotonic()
    writer = Writer(model.module.backbone, model.processor, settings)
    light = without_frames(samples)
    tokens = {position: light[position].without_pixels() for position in range(len(samples))}
    asked = [position for position, sample in tokens.items() if model.stage.is_reference(sample)]
    batches = [[asked[each] for each in batch] for batch in batches_of(len(asked), batch_size)]
    written = writer.write(
        samples, batches, compute=model.compute, seed=seed, num_workers=num_workers, what="writing answers"
    )
    answers = tuple(
        _answer(writer, position, tokens[position], writer.text(found.tokens), is_cut=found.is_cut)
        for position, found in zip(asked, written, strict=True)
    )
    return SplitAnswers(answers, num_missing, len(batches), time.monotonic() - started)


def without_frames(samples: Samples) -> Samples:
    """The same samples with no frames, where that saves reading them."""
    if isinstance(samples, PreparedSamples):
        return samples.without_frames()
    if isinstance(samples, Disturbed):
        return without_frames(samples.samples)
    if isinstance(samples, Subset):
        return cast(Samples, Subset(cast(Any, without_frames(cast(Samples, samples.dataset))), samples.indices))
    return samples


def in_words(settings: GenerationConfig) -> str:
    """How tokens are chosen."""
    beams = f"{settings.num_beams} beams, " if settings.num_beams > 1 else ""
    if not settings.do_sample:
        return f"{beams}the likeliest token, at most {settings.max_new_tokens} tokens"
    return (
        f"{beams}drawn at temperature {settings.temperature:g}, top_p {settings.top_p:g}, top_k {settings.top_k}, at "
        f"most {settings.max_new_tokens} tokens"
    )


def _answer(writer: Writer, position: int, sample: Sample, written: str, *, is_cut: bool) -> Answer:
    tokenizer, count = writer.processor.processor.tokenizer, sample.num_prompt_tokens
    prompt, types = sample.input_ids[:count], sample.mm_token_type_ids[:count]
    return Answer(
        position=position,
        sample_id=sample.sample_id,
        source=sample.source,
        prompt=tokenizer.decode(prompt, skip_special_tokens=False),
        question=tokenizer.decode(prompt[types == 0], skip_special_tokens=True).strip(),
        written=written,
        reference=writer.text(_up_to_its_end(sample.input_ids[count:], writer.end_tokens)),
        is_cut=is_cut,
    )


def _up_to_its_end(answer: NDArray[np.int64], end_tokens: Sequence[int]) -> list[int]:
    """An answer without what the chat template puts behind its end, which no model gets to write."""
    ends = np.flatnonzero(np.isin(answer, list(end_tokens)))
    kept: list[int] = answer[: ends[0] + 1 if len(ends) else None].tolist()
    return kept
