"""A conversation as tokens, with those that are to be learned."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ivcp.data.prepared.sample import Tokens
from ivcp.data.prompts import PromptError, media_tags, render_conversation
from ivcp.models.processor import Processor
from ivcp.models.sampled import SampledVideo
from ivcp.records import Message


@dataclass(frozen=True)
class _Piece:
    """A stretch of the rendered conversation: an answer with its end of turn, or what stands between answers."""

    text: str
    is_answer: bool
    num_media: int


def conversation_tokens(
    processor: Processor,
    messages: Sequence[Message],
    media: Sequence[SampledVideo],
    *,
    train_on_prompt: bool = False,
    mask_history: bool = False,
) -> Tokens:
    """Tokens of a whole conversation; learned is what the assistant says, each turn with its end.

    Where the chat template ends a turn with no token of its own (LLaVA-NeXT-Video's), the last answer ends with that of
    a text: a model that never learned an end would not stop writing.

    Answers begin where tokens begin, as they do when the model writes them behind the prompt. `train_on_prompt` learns
    the rest as well, but for media; `mask_history` learns the last answer alone. The prompt of the sample is what
    stands before its last answer.

    Raises:
        PromptError: there is no answer, or the chat template renders an answered turn in another way than a prompt.
    """
    pieces = list(_pieces(processor, messages))
    answers = [number for number, piece in enumerate(pieces) if piece.is_answer]
    if not answers:
        raise PromptError("the conversation has no answer: add a turn of the assistant")
    learned = answers[-1:] if mask_history else answers
    ids, types, masks, used = [], [], [], 0
    for number, piece in enumerate(pieces):
        of_piece = media[used : used + piece.num_media]
        used += piece.num_media
        piece_ids, piece_types = processor.encode_piece(piece.text, of_piece, is_first=number == 0)
        ids.append(piece_ids)
        types.append(piece_types)
        is_learned = number in learned or (train_on_prompt and not piece.is_answer)
        masks.append((piece_types == 0) & is_learned)
    input_ids, token_types = np.concatenate(ids), np.concatenate(types)
    if sum(piece.num_media > 0 for piece in pieces) > 1:
        input_ids = _numbered_together(processor, pieces, media, input_ids, token_types)
    return Tokens(
        input_ids=input_ids,
        mm_token_type_ids=token_types,
        loss_mask=np.concatenate(masks),
        num_prompt_tokens=sum(map(len, ids[: answers[-1]])),
    )


def _numbered_together(
    processor: Processor,
    pieces: Sequence[_Piece],
    media: Sequence[SampledVideo],
    ids: NDArray[np.int64],
    types: NDArray[np.int64],
) -> NDArray[np.int64]:
    """The ids of all pieces at once, where they fit: some families number the media of a conversation (MiniCPM-V)."""
    whole_ids, whole_types = processor.encode("".join(piece.text for piece in pieces), media)
    return whole_ids if np.array_equal(whole_types, types) else ids


def _pieces(processor: Processor, messages: Sequence[Message]) -> Iterator[_Piece]:
    """In their order; joined, their texts are the rendered conversation, with an end."""
    whole, at = render_conversation(processor.processor, messages), 0
    tags_before = 0
    for number, message in enumerate(messages):
        if not message.is_answer:
            continue
        start = len(_prefix(processor, messages[:number], whole, add_generation_prompt=True))
        end = len(_prefix(processor, messages[: number + 1], whole))
        _check_calls(message, whole[start:end])
        tags = _count_tags(messages[:number])
        yield _Piece(whole[at:start], False, tags - tags_before)
        answer = whole[start:end]
        if end == len(whole) and not processor.ends_of_turn:
            answer = answer.rstrip() + (processor.processor.tokenizer.eos_token or "")
        yield _Piece(answer, True, _count_tags([message]))
        at, tags_before = end, tags + _count_tags([message])
    if at < len(whole):
        yield _Piece(whole[at:], False, _count_tags(messages) - tags_before)


def _count_tags(messages: Sequence[Message]) -> int:
    return sum(len(media_tags(message.content)) for message in messages)


def _check_calls(message: Message, text: str) -> None:
    if message.role == "function" and any(part.get("name", "") not in text for part in json.loads(message.content)):
        raise PromptError(
            "the model's chat template leaves out what the assistant calls (tool_calls): take a model whose template "
            "knows them, such as Qwen3-VL's, or rows without function calls"
        )


def _prefix(
    processor: Processor, messages: Sequence[Message], whole: str, *, add_generation_prompt: bool = False
) -> str:
    text = render_conversation(processor.processor, messages, add_generation_prompt=add_generation_prompt)
    if not whole.startswith(text):
        raise PromptError(
            "the model's chat template renders the beginning of this conversation in another way than the whole of it: "
            f"{text[-80:]!r} does not stand in it; train on single turns, or set another template"
        )
    return text
