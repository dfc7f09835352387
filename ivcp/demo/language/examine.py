"""What a model says about clips that it never saw."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from ivcp.demo.language.clips import DescribedClip, draw_described_clips
from ivcp.demo.language.warm_up import sample_of
from ivcp.models.families import accepted_inputs
from ivcp.models.processor import Processor
from ivcp.settings import VideoConfig

TEXT = """The lighthouse keeper climbed the stairs every evening before the sun went down. He cleaned the glass, filled
the lamp with oil, and waited for the first ships to pass. In winter the storms were so loud that he could not hear his
own voice, and he wrote long letters to his sister, who lived in a town far away from the sea."""
"""That has nothing to do with clips."""
_HELD_OUT = 1_000_000
"""The number of the first clip that no warm-up learns from."""
_MOST_TOKENS = 40
_BATCH = 16


@dataclass(frozen=True)
class Examined:
    """A question, and how it was answered."""

    question: str
    said: tuple[str, ...]
    """Of each clip."""
    right: tuple[str, ...]
    """Of each clip."""

    @property
    def exact_match(self) -> float:
        """Share of the answers that are right to the letter."""
        return sum(said == right for said, right in zip(self.said, self.right, strict=True)) / len(self.right)


def held_out_clips(count: int, *, seed: int) -> list[DescribedClip]:
    """Clips of the kind of the warm-up's, none of which it learns from."""
    return draw_described_clips(_HELD_OUT, count, seed=seed)


def examine(model: Any, processor: Any, clips: list[DescribedClip]) -> list[Examined]:
    """Asks every question about every clip; answers are greedy.

    Args:
        model: Of `build_language_model`.
        processor: The model's own.
        clips: Of one length.
    """
    ours = Processor(processor, video=VideoConfig())
    found = []
    for number, asked in enumerate(clips[0].questions):
        right = tuple(clip.questions[number].answer for clip in clips)
        said = tuple(_answers(model, ours, clips, number))
        found.append(Examined(asked.question, said, right))
    return found


def perplexity(model: Any, tokenizer: Any, text: str = TEXT) -> float:
    """How many tokens a model hesitates between, on average, as it reads a text."""
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    with torch.no_grad():
        logits = model(input_ids=ids).logits
    return math.exp(functional.cross_entropy(logits[0, :-1].float(), ids[0, 1:]).item())


def _answers(model: Any, processor: Processor, clips: list[DescribedClip], number: int) -> Iterable[str]:
    for start in range(0, len(clips), _BATCH):
        some = clips[start : start + _BATCH]
        samples = [sample_of(processor, clip.frames, clip.questions[number]) for clip in some]
        batch = accepted_inputs(model, processor.batch(samples, prompts_only=True))
        with torch.no_grad():
            written = model.generate(**batch, max_new_tokens=_MOST_TOKENS, do_sample=False)
        behind = written[:, batch["input_ids"].shape[1] :]
        yield from (text.strip() for text in processor.processor.batch_decode(behind, skip_special_tokens=True))
