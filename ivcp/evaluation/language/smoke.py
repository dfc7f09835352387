"""Chooses the conversation that checks a deployment of a model that writes, or scores."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ivcp import storage
from ivcp.data.prepared.sample import Medium, Sample
from ivcp.data.prompts import PromptError, check_no_other_tokens, media_tags
from ivcp.evaluation.smoke import comes_from_its_file
from ivcp.inference.generation import Writer, prompt_sample
from ivcp.inference.loop import Samples
from ivcp.inference.turns import AnswerOptions, GrowingAnswer, write_turn
from ivcp.models.backbone import language_model_of
from ivcp.models.families import accepted_inputs
from ivcp.records import Message
from ivcp.records.language_evaluation import SmokeQuestion
from ivcp.settings import GenerationConfig
from ivcp.stages.language.scores import scores_of
from ivcp.stages.loaded_model import LoadedModel
from ivcp.video import ClipFrames, load_clip

log = logging.getLogger(__name__)

_TRIES = 8
"""Clips that are looked at."""
_TOKENS = 24
_MOST_BYTES = 30_000_000
"""Of a video, which is sent as text in JSON."""
_SURE, _SURE_ROUNDED = 0.05, 1.0
"""How far the score of a token must be above the next one's, so that rounding does not exchange them; and where weights
or numbers have 16 bits or fewer."""


def choose_smoke_question(model: LoadedModel, samples: Samples) -> SmokeQuestion | None:
    """The model's own question about a clip, and how its answer begins, or what its score is.

    A clip that is a span of a longer video cannot be compared. Null where no clip can, or no answer is sure enough.
    """
    messages = model.prompt
    tags = media_tags("".join(message.content for message in messages))
    if tags not in ((), ("video",)) or not _can_be_asked(model):
        log.warning("the model's own prompt is no question about one video or none: a deployment cannot be compared")
        return None
    for sample in _candidates(model, samples) if tags else [samples[0]] if len(samples) else []:
        clips = [load_clip(sample.source, processor=model.processor)] if tags else []
        question = SmokeQuestion(
            clip_id=sample.sample_id, video=sample.source if tags else None, messages=tuple(messages)
        )
        found = _answered(model, question, clips) if model.stage.writes else _scored(model, question, clips, sample)
        if found is not None:
            return found
    log.warning("no clip found whose video file alone gives a sure answer: a deployment cannot be compared")
    return None


def _can_be_asked(model: LoadedModel) -> bool:
    """Whether the model's own prompt is a question that the server's routes take."""
    messages = model.prompt
    text = "".join(message.content for message in messages)
    try:
        check_no_other_tokens(text, allowed=(), special_tokens=model.processor.special_tokens)
    except PromptError:
        return False
    roles = [message.role for message in messages]
    return roles[-1:] == ["user"] and set(roles) <= {"system", "user", "assistant"}


def _candidates(model: LoadedModel, samples: Samples) -> Iterator[Sample]:
    for position in range(min(_TRIES, len(samples))):
        sample = samples[position]
        has_one = len(sample.media) == 1 and sample.media[0].kind == "video"
        if has_one and comes_from_its_file(sample, model) and _size(sample.source) <= _MOST_BYTES:
            yield sample


def _size(source: str) -> int:
    return Path(storage.local_path(source)).stat().st_size


def _answered(model: LoadedModel, question: SmokeQuestion, clips: Sequence[ClipFrames]) -> SmokeQuestion | None:
    """With the answer, as far as each of its tokens is sure; null where the first one is not."""
    writer = Writer(model.module.backbone, model.processor, GenerationConfig(do_sample=False))
    prompt = prompt_sample(model.processor, question.messages, clips, question.clip_id)
    answer = GrowingAnswer(writer, prompt, AnswerOptions(_TOKENS))
    write_turn(writer, [answer], compute=model.compute, should_end=lambda _: False)
    least = _SURE_ROUNDED if model.config.is_rounded else _SURE
    margins = _margins(model, answer, never=writer.media_tokens or [])
    sure = next((place for place, margin in enumerate(margins) if margin < least), len(margins))
    if sure == 0:
        return None
    begun = GrowingAnswer(writer, prompt, AnswerOptions(sure))
    for token in answer.tokens[:sure]:
        begun.add(token)
    return question.model_copy(update={"answer": begun.text, "num_tokens": sure})


def _margins(model: LoadedModel, answer: GrowingAnswer, *, never: list[int]) -> list[float]:
    """How far the score of each written token is above the next best one's; `never` are tokens that are not written."""
    backbone, sample = language_model_of(model.module.backbone), answer.prompt
    batch = model.compute.to_device(model.processor.batch([sample], prompts_only=True))
    with torch.no_grad(), model.compute.autocast():
        scores = backbone(**accepted_inputs(backbone, batch), use_cache=False).logits[0].float()
    scores[:, never] = -torch.inf
    best = scores[-len(answer.tokens) - 1 : -1].topk(2, dim=-1).values
    return [float(margin) for margin in best[:, 0] - best[:, 1]]


def _scored(
    model: LoadedModel, question: SmokeQuestion, clips: Sequence[ClipFrames], sample: Sample
) -> SmokeQuestion | None:
    """With the answer of the sample, and its score."""
    if model.stage.served_as != "scorer":
        return None
    tokenizer = model.processor.processor.tokenizer
    said = tokenizer.decode(sample.input_ids[sample.num_prompt_tokens :].tolist(), skip_special_tokens=True).strip()
    messages = (*question.messages, Message(role="assistant", content=said))
    tokens = model.tokenize(messages, clips)
    asked = replace(sample, **vars(tokens), media=tuple(map(Medium.of, clips)))
    score = float(scores_of(model, [asked])[0])
    return question.model_copy(update={"messages": messages, "score": score})
