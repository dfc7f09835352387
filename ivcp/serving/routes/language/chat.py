"""OpenAI's chat completions: the answers to a conversation, at once or piece by piece."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from ivcp.inference.turns import FinishReason
from ivcp.records.answers import ModelIdentity
from ivcp.serving.http.problems import problem_of
from ivcp.serving.http.requests import read_json
from ivcp.serving.http.timings import current_timings
from ivcp.serving.language.served_writer import Piece, ServedWriter
from ivcp.serving.language.source import LanguageSource
from ivcp.serving.routes.language.chat_requests import ChatRequest
from ivcp.serving.routes.language.messages import stored_conversation
from ivcp.serving.routes.next_event import EVENTS, next_event
from ivcp.serving.routes.openapi import OF_PREDICTIONS, body_of
from ivcp.serving.service import Service

_EXAMPLE = {
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}},
                {"type": "text", "text": "What happens here?"},
            ],
        }
    ],
    "max_tokens": 64,
}
_TOO_LATE = "the answer was not written in time (X-Deadline-Seconds, request_timeout_seconds): ask for fewer max_tokens"


class Usage(BaseModel):
    """Tokens that were read and written."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class AnswerMessage(BaseModel):
    """An answer."""

    role: Literal["assistant"] = "assistant"
    content: str


class AnswerChoice(BaseModel):
    """One of the answers."""

    index: int
    message: AnswerMessage
    logprobs: None = None
    finish_reason: FinishReason


class ChatCompletion(BaseModel):
    """All answers to one conversation."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    system_fingerprint: str | None
    """The model's version, where the deployment gave one."""
    choices: tuple[AnswerChoice, ...]
    usage: Usage


def routes(service: Service[LanguageSource, ServedWriter]) -> APIRouter:
    """Of `/v1/chat/completions`."""
    router = APIRouter(tags=["chat"])

    @router.post(
        "/v1/chat/completions",
        response_model=ChatCompletion,
        responses={**OF_PREDICTIONS, 200: {"content": {EVENTS: {"schema": {"type": "string"}}}}},
        openapi_extra=body_of(None, ChatRequest, _EXAMPLE),
    )
    async def complete(request: Request) -> Any:
        """Answers a conversation; with `stream` each piece is sent as soon as it is written."""
        asked, timings = await read_json(request, ChatRequest), current_timings()
        async with AsyncExitStack() as kept:
            model = kept.enter_context(service.using(asked.model))
            timings.model = model.source.name
            async with stored_conversation(asked.messages, service) as conversation:
                sample = await model.read(conversation, timings)
            longest = model.longest_answer(sample, asked.longest)
            pieces = model.write(sample, asked.options(model.defaults, max_new_tokens=longest), timings)
            completion = _Completion(
                f"chatcmpl-{request.state.request_id}", model.source.identity, asked, sample.num_prompt_tokens
            )
            if not asked.stream:
                async with aclosing(pieces):
                    return await completion.whole(pieces)
            first = await anext(pieces)  # what is wrong with the model is an ordinary error
            events = completion.events(first, pieces, kept.pop_all())
            return StreamingResponse(events, media_type=EVENTS, headers={"Cache-Control": "no-store"})

    return router


@dataclass
class _Completion:
    """The answers to one request as they come."""

    id: str
    model: ModelIdentity
    asked: ChatRequest
    num_prompt_tokens: int
    created: int = field(default_factory=lambda: int(time.time()))
    num_written: int = 0

    @property
    def usage(self) -> Usage:
        """So far."""
        return Usage(
            prompt_tokens=self.num_prompt_tokens,
            completion_tokens=self.num_written,
            total_tokens=self.num_prompt_tokens + self.num_written,
        )

    async def whole(self, pieces: AsyncIterator[Piece]) -> ChatCompletion:
        """All at once."""
        texts, ends = [""] * self.asked.n, dict[int, FinishReason]()
        async for piece in pieces:
            texts[piece.number] += piece.text
            self.num_written += piece.num_tokens
            if piece.finish_reason:
                ends[piece.number] = piece.finish_reason
        choices = tuple(
            AnswerChoice(index=number, message=AnswerMessage(content=text), finish_reason=ends[number])
            for number, text in enumerate(texts)
        )
        return ChatCompletion(id=self.id, **self._said, choices=choices, usage=self.usage)

    async def events(
        self, first: Piece, pieces: AsyncGenerator[Piece, None], kept: AsyncExitStack
    ) -> AsyncIterator[bytes]:
        """Server-sent events; what goes wrong on the way is the last one."""
        async with kept, aclosing(pieces):
            for number in range(self.asked.n):
                yield self._chunk(number, {"role": "assistant", "content": ""})
            piece: Piece | None = first
            try:
                while piece is not None:
                    self.num_written += piece.num_tokens
                    delta = {"content": piece.text} if piece.text else {}
                    yield self._chunk(piece.number, delta, piece.finish_reason)
                    piece = await next_event(pieces, too_late=_TOO_LATE)
            except Exception as error:
                problem = problem_of(error)
                if problem is None:
                    raise
                current_timings().code = problem.code
                yield _event(problem.openai_body())
                return
            if self.asked.stream_options and self.asked.stream_options.include_usage:
                yield _event(self._head | {"choices": [], "usage": self.usage.model_dump()})
            yield b"data: [DONE]\n\n"

    def _chunk(self, number: int, delta: dict[str, str], finish_reason: FinishReason | None = None) -> bytes:
        choice = {"index": number, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return _event(self._head | {"choices": [choice]})

    @property
    def _said(self) -> dict[str, Any]:
        return {"created": self.created, "model": self.model.name, "system_fingerprint": self.model.version}

    @property
    def _head(self) -> dict[str, Any]:
        return {"id": self.id, "object": "chat.completion.chunk", **self._said}


def _event(body: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n".encode()
