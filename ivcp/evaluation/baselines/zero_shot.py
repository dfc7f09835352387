"""The base model asked in words: the classes stand in the question, and it can answer with one of them only."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ivcp.data.prepared.sample import Tokens
from ivcp.data.prompts import VIDEO_TAG
from ivcp.inference.compute import Compute
from ivcp.inference.generation import Writer, left_padded, prompt_sample
from ivcp.inference.loop import Samples, batches_of, run_batches
from ivcp.models.processor import Processor
from ivcp.records import Message
from ivcp.settings import GenerationConfig
from ivcp.torchvision_compat import register_missing_operators

register_missing_operators()

from transformers import LogitsProcessor  # noqa: E402

_NO_CLASS = -1


def question(names: Sequence[str], system: Sequence[Message]) -> tuple[Message, ...]:
    """What is asked: `names` are the classes in words."""
    listed = "\n".join(names)
    asked = f"{VIDEO_TAG}Which of these does the video show? Answer with one of them, and with nothing else.\n{listed}"
    return (*system, Message(role="user", content=asked))


def in_words(label_names: Sequence[str]) -> tuple[str, ...]:
    """Names of classes as people write them: `sit_down` and `SitDown` are "sit down".

    Names that would then be the same stay as they are.
    """
    words = [re.sub(r"[\s_-]+", " ", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)).strip() for name in label_names]
    lower = tuple(word if word.isupper() else word.lower() for word in words)
    return lower if len(set(lower)) == len(label_names) and all(lower) else tuple(label_names)


def tokenize(processor: Processor, messages: Sequence[Message], media: Sequence[Any]) -> Tokens:
    """A question with its video, up to where the answer begins."""
    sample = prompt_sample(processor, messages, media, "a clip")
    return Tokens(sample.input_ids, sample.mm_token_type_ids, sample.loss_mask, sample.num_prompt_tokens)


def answers(
    base: Any,
    processor: Processor,
    samples: Samples,
    names: Sequence[str],
    *,
    batch_size: int,
    compute: Compute,
    num_workers: int,
) -> NDArray[np.int64]:
    """The class that the base model names of each sample, (samples,).

    It writes greedily, among the tokens that go on towards the name of a class.

    Args:
        base: a transformers video language model, or a peft model around one.
        processor: the model's.
        samples: asked `question`.
        names: of the classes, in words; all different.
        batch_size: samples of a batch.
        compute: device and precision.
        num_workers: processes that read samples.
    """
    tokenizer = processor.processor.tokenizer
    spelled = [tuple(tokenizer(name, add_special_tokens=False)["input_ids"]) for name in names]
    longest = max(map(len, spelled))
    writer = Writer(base, processor, GenerationConfig(do_sample=False, max_new_tokens=longest + 1))
    end = writer.end_tokens[0]
    label_of = {tokens: label for label, tokens in enumerate(spelled)}

    def forward(batch: Mapping[str, Any]) -> list[int]:
        written = writer.write_batch(batch, choosing=_OneOf(spelled, end))
        return [label_of.get(tuple(t for t in answer.tokens if t != end), _NO_CLASS) for answer in written]

    found = run_batches(
        samples,
        forward,
        collate=partial(left_padded, processor),
        batches=batches_of(len(samples), batch_size),
        compute=compute,
        num_workers=num_workers,
        what="batches of zero-shot answers",
    )
    return np.array([label for labels in found for label in labels], dtype=np.int64)


class _OneOf(LogitsProcessor):  # type: ignore[misc]
    """Leaves the tokens that go on towards one of several answers, and behind a whole one the token that ends it."""

    def __init__(self, answers: Sequence[tuple[int, ...]], end: int) -> None:
        self.following: dict[tuple[int, ...], set[int]] = {}
        for answer in answers:
            for length, token in enumerate((*answer, end)):
                self.following.setdefault(answer[:length], set()).add(token)
        self.end = end
        self.prompt_tokens: int | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if self.prompt_tokens is None:
            self.prompt_tokens = input_ids.shape[1]
        left = torch.full_like(scores, -torch.inf)
        for row, written in enumerate(input_ids[:, self.prompt_tokens :].tolist()):
            allowed = sorted(self.following.get(tuple(written), {self.end}))
            left[row, allowed] = scores[row, allowed]
        return left
