"""What a model writes behind prompts: the generation of evaluation, and of whatever else lets a model write.

transformers' own `generate` of the backbone does it, with an adapter or without, and with the media that the module's
forward takes. Prompts are padded on the left, so that all of a batch go on at the same place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ivcp.data.prepared.sample import Medium, Sample
from ivcp.data.prompts import render_conversation
from ivcp.inference.compute import Compute
from ivcp.inference.loop import Samples, run_batches
from ivcp.models.backbone import language_model_of
from ivcp.models.families import accepted_inputs
from ivcp.models.processor import Batch, Processor
from ivcp.records import Message
from ivcp.settings import GenerationConfig
from ivcp.torchvision_compat import register_missing_operators
from ivcp.video import ClipFrames

register_missing_operators()

import transformers  # noqa: E402
from transformers import (  # noqa: E402
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

_OF_TOKENS = ("input_ids", "attention_mask", "mm_token_type_ids")
"""Tensors with a column for each token."""
_MEDIA_TOKENS = ("image_token_id", "video_token_id", "audio_token_id")
"""Where configurations name them."""


@dataclass(frozen=True)
class WrittenAnswer:
    """What a model wrote behind one prompt."""

    tokens: tuple[int, ...]
    """With the one that ended it, where one did."""
    is_cut: bool
    """Whether it was still writing when `max_new_tokens` were there."""


@dataclass(frozen=True)
class Writer:
    """Lets a backbone write."""

    backbone: Any
    """A transformers video language model, or a peft model around one, in evaluation mode."""
    processor: Processor
    settings: GenerationConfig

    def write(
        self,
        samples: Samples,
        batches: Iterable[Sequence[int]],
        *,
        compute: Compute,
        seed: int = 0,
        num_workers: int = 0,
        what: str | None = None,
    ) -> list[WrittenAnswer]:
        """The answers to the prompts of `samples`, in the order of `batches`; whatever follows a prompt is not read.

        Args:
            samples: with all their media in their prompts.
            batches: positions of the samples of each batch.
            compute: device and precision.
            seed: of what is drawn where `do_sample` is set: the same answers every time. The random state outside
                stays as it was.
            num_workers: processes that read samples.
            what: what progress calls the batches; null shows none.
        """
        with torch.random.fork_rng(devices=[compute.device] if compute.device.type == "cuda" else []):
            torch.manual_seed(seed)
            found = run_batches(
                samples,
                self.write_batch,
                collate=_LeftPadded(self.processor),
                batches=batches,
                compute=compute,
                num_workers=num_workers,
                what=what,
            )
            return [answer for answers in found for answer in answers]

    def write_batch(
        self,
        batch: Mapping[str, Any],
        *,
        per_prompt: int = 1,
        streamer: Any = None,
        choosing: LogitsProcessor | None = None,
    ) -> list[WrittenAnswer]:
        """The answers to a batch of prompts, as `left_padded` makes it, on the backbone's device.

        `per_prompt` answers to the first prompt come first, then those to the second, and so on: where it is above 1,
        they are drawn. Media are encoded once for all of them. `streamer` is transformers': it is given the tokens of
        a batch of one as they are written. So is `choosing`, which says what may be written.
        """
        model = language_model_of(self.backbone)
        inputs = accepted_inputs(model, batch)
        config = self._config
        config.num_return_sequences = per_prompt
        processors = LogitsProcessorList([choosing] if choosing else [])
        written: Tensor = model.generate(
            **inputs, generation_config=config, streamer=streamer, logits_processor=processors
        )
        return [self._answer(row) for row in written[:, batch["input_ids"].shape[1] :].tolist()]

    def write_watched(
        self, batch: Mapping[str, Any], *, max_new_tokens: int, choosing: LogitsProcessor, watching: StoppingCriteria
    ) -> None:
        """Writes behind a batch of prompts what `choosing` makes the likeliest, and `watching` sees.

        Both are transformers'; of the settings nothing is read but how media and padding are written.
        """
        model = language_model_of(self.backbone)
        config = transformers.GenerationConfig(
            do_sample=False, max_new_tokens=max_new_tokens, **self._tokens_of_the_model
        )
        model.generate(
            **accepted_inputs(model, batch),
            generation_config=config,
            logits_processor=LogitsProcessorList([choosing]),
            stopping_criteria=StoppingCriteriaList([watching]),
        )

    def text(self, tokens: Sequence[int]) -> str:
        """Tokens as people read them."""
        text: str = self.processor.processor.tokenizer.decode(
            list(tokens), skip_special_tokens=self.settings.skip_special_tokens
        )
        return text

    @cached_property
    def end_tokens(self) -> tuple[int, ...]:
        """The tokens that end an answer: the model's own, the tokenizer's, and what the chat template ends a turn with.

        A base model that was not trained to chat names the end of a text alone, which no turn ends with.
        """
        own = language_model_of(self.backbone).generation_config.eos_token_id
        named = own if isinstance(own, list) else [own]
        tokenizer = self.processor.processor.tokenizer
        return tuple(sorted({*named, tokenizer.eos_token_id, *self.processor.ends_of_turn} - {None}))

    @property
    def _config(self) -> Any:
        settings = self.settings
        # What is not said here is taken from the published model's own configuration, and would be in the way.
        options: dict[str, Any] = {"temperature": 1.0, "top_p": 1.0, "top_k": 50}
        if settings.do_sample:
            options = {"temperature": settings.temperature, "top_p": settings.top_p, "top_k": settings.top_k}
        if settings.num_beams > 1:
            options |= {"num_beams": settings.num_beams, "length_penalty": settings.length_penalty}
        return transformers.GenerationConfig(
            **options,
            do_sample=settings.do_sample,
            max_new_tokens=settings.max_new_tokens,
            repetition_penalty=settings.repetition_penalty,
            **self._tokens_of_the_model,
        )

    @property
    def _tokens_of_the_model(self) -> dict[str, Any]:
        return {
            "eos_token_id": list(self.end_tokens),
            "pad_token_id": self._pad_token,
            "suppress_tokens": self.media_tokens,
            "use_cache": True,
        }

    @property
    def media_tokens(self) -> list[int] | None:
        """Tokens that stand for media, which no answer holds: a forward pass over it would look for their features."""
        config = language_model_of(self.backbone).config
        named = [getattr(config, name, None) for name in _MEDIA_TOKENS]
        return [token for token in named if token is not None] or None

    @property
    def _pad_token(self) -> int:
        return self.processor.processor.tokenizer.pad_token_id or 0

    def _answer(self, written: Sequence[int]) -> WrittenAnswer:
        """One row of what was written, behind whose end there is padding."""
        ends = [position for position, token in enumerate(written) if token in self.end_tokens]
        return WrittenAnswer(tuple(written[: ends[0] + 1] if ends else written), is_cut=not ends)


def prompt_sample(
    processor: Processor, messages: Sequence[Message], videos: Sequence[ClipFrames | Medium], name: str
) -> Sample:
    """A conversation that is to be answered, with the videos of its tags; `name` is what messages call it.

    Raises:
        UnsupportedModelError: the chat template has no place for videos.
    """
    text = render_conversation(processor.processor, messages, add_generation_prompt=True)
    ids, types = processor.encode_piece(text, videos, is_first=True)
    return Sample(
        input_ids=ids,
        mm_token_type_ids=types,
        loss_mask=types < 0,
        num_prompt_tokens=len(ids),
        sample_id=name,
        source="",
        media=tuple(each if isinstance(each, Medium) else Medium.of(each) for each in videos),
    )


def left_padded(processor: Processor, samples: Sequence[Sample]) -> Batch:
    """A batch of prompts as `Processor.batch` makes it, (batch, longest), with its padding on the left."""
    batch = processor.batch(samples, prompts_only=True)
    missing = (batch["attention_mask"] == 0).sum(dim=1).tolist()
    for name in _OF_TOKENS:
        batch[name] = torch.stack([row.roll(count) for row, count in zip(batch[name], missing, strict=True)])
    return batch


@dataclass(frozen=True)
class _LeftPadded:
    """`left_padded`, for worker processes too."""

    processor: Processor

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        return left_padded(self.processor, samples)
