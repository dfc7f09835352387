"""How good answers are: vLLM's `/v1/score`, and LLaMA-Factory's `/v1/score/evaluation`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated, Literal, Self

from fastapi import APIRouter, Request
from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field, Tag, model_validator

from ivcp.records.answers import ModelIdentity
from ivcp.serving.http.problems import ProblemError
from ivcp.serving.http.requests import Text, read_json
from ivcp.serving.http.timings import Timings, current_timings
from ivcp.serving.language.served_scorer import ServedScorer
from ivcp.serving.language.source import LanguageSource
from ivcp.serving.routes.language.messages import Content, PlainText, SaidText, Turn, stored_conversation, text_or
from ivcp.serving.routes.openapi import OF_PREDICTIONS, body_of
from ivcp.serving.service import Service
from ivcp.serving.side_by_side import each_of

_PAIR = {"text_1": "What happens here?", "text_2": ["A man sits down.", "Nothing."]}
_TURNS = [{"role": "user", "content": "What happens here?"}, {"role": "assistant", "content": "A man sits down."}]
Conversation = tuple[Turn, ...]
Side = Annotated[PlainText | Annotated[Content, Tag("content")], text_or("content")]


def _ends_with_answer(conversation: Conversation) -> Conversation:
    if not conversation or conversation[-1].role != "assistant":
        raise ValueError("the last turn must be the assistant's: the answer that is scored")
    return conversation


AnsweredConversation = Annotated[Conversation, AfterValidator(_ends_with_answer)]
TextOrTurns = Annotated[Annotated[Text, Tag("text")] | Annotated[AnsweredConversation, Tag("turns")], text_or("turns")]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=())

    model: Text | None = None
    """The model's name; by default the one that there is."""


class ScoreRequest(_Asked):
    """Questions and answers, or conversations that end with one."""

    text_1: Side | tuple[Side, ...] | None = Field(None, validation_alias=AliasChoices("text_1", "queries"))
    """A question for each answer, or one for all: text, or `{"content": [parts]}`."""
    text_2: SaidText | tuple[SaidText, ...] | None = Field(None, validation_alias=AliasChoices("text_2", "documents"))
    """Answers."""
    messages: list[AnsweredConversation] | None = Field(None, min_length=1)
    """In place of both: conversations, each ending with the answer."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.messages is None) == (self.text_1 is None) or (self.text_1 is None) != (self.text_2 is None):
            raise ValueError("expected text_1 with text_2, or messages")
        if self.messages is None and len(self.questions) not in (1, len(self.answers)):
            raise ValueError(f"{len(self.questions)} text_1 for {len(self.answers)} text_2: expected one, or as many")
        return self

    @property
    def questions(self) -> tuple[Side, ...]:
        """All of `text_1`."""
        return self.text_1 if isinstance(self.text_1, tuple) else (self.text_1 or "",)

    @property
    def answers(self) -> tuple[str, ...]:
        """All of `text_2`."""
        return self.text_2 if isinstance(self.text_2, tuple) else (self.text_2 or "",)

    @property
    def conversations(self) -> Sequence[Conversation]:
        """All of them."""
        if self.messages is not None:
            return self.messages
        questions = self.questions if len(self.questions) > 1 else self.questions * len(self.answers)
        return tuple(
            (
                Turn(role="user", content=question.content if isinstance(question, Content) else question),
                Turn(role="assistant", content=answer),
            )
            for question, answer in zip(questions, self.answers, strict=True)
        )


class EvaluationRequest(_Asked):
    """Conversations that end with an answer, as turns, or as text that the model's chat template has made."""

    messages: list[TextOrTurns] = Field(min_length=1)


class Score(BaseModel):
    """Of one answer."""

    index: int
    object: Literal["score"] = "score"
    score: float


class ReadTokens(BaseModel):
    """Tokens that were read."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int = 0


class ScoreReply(BaseModel):
    """All scores."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    system_fingerprint: str | None
    """The model's version, where the deployment gave one."""
    data: tuple[Score, ...]
    usage: ReadTokens


class EvaluationReply(BaseModel):
    """All scores, in LLaMA-Factory's shape."""

    id: str
    object: Literal["score.evaluation"] = "score.evaluation"
    model: str
    scores: tuple[float, ...]


def routes(service: Service[LanguageSource, ServedScorer]) -> APIRouter:
    """Of `/v1/score` and `/v1/score/evaluation`."""
    router = APIRouter(tags=["scores"])

    async def scores(
        name: str | None, asked: Sequence[str | Conversation], timings: Timings
    ) -> tuple[ModelIdentity, tuple[float, ...]]:
        most = service.settings.max_batch_requests
        if len(asked) > most:
            raise ProblemError(
                "bad_request_fields", f"{len(asked)} conversations came, expected at most {most} (max_batch_requests)"
            )
        with service.using(name) as model:
            timings.model = model.source.name

            async def one(numbered: tuple[int, str | Conversation]) -> float:
                number, conversation = numbered
                called = f"conversation {number}"
                if isinstance(conversation, str):
                    return await model.score(model.sample_of_text(conversation, called), timings)
                async with stored_conversation(conversation, service) as stored:
                    sample = await model.read(stored, timings, name=called)
                return await model.score(sample, timings)

            found = await each_of(list(enumerate(asked)), one, at_once=2 * service.decoders.num_workers)
            return model.source.identity, tuple(found)

    @router.post("/v1/score", responses=OF_PREDICTIONS, openapi_extra=body_of(None, ScoreRequest, _PAIR))
    async def score(request: Request) -> ScoreReply:
        """How good answers are, in vLLM's shape: more is better."""
        asked, timings = await read_json(request, ScoreRequest), current_timings()
        model, found = await scores(asked.model, asked.conversations, timings)
        return ScoreReply(
            id=f"score-{request.state.request_id}",
            created=int(time.time()),
            model=model.name,
            system_fingerprint=model.version,
            data=tuple(Score(index=number, score=each) for number, each in enumerate(found)),
            usage=ReadTokens(prompt_tokens=timings.tokens, total_tokens=timings.tokens),
        )

    @router.post(
        "/v1/score/evaluation",
        responses=OF_PREDICTIONS,
        openapi_extra=body_of(None, EvaluationRequest, {"messages": [_TURNS]}),
    )
    async def evaluation(request: Request) -> EvaluationReply:
        """The same in LLaMA-Factory's shape."""
        asked, timings = await read_json(request, EvaluationRequest), current_timings()
        model, found = await scores(asked.model, asked.messages, timings)
        return EvaluationReply(id=f"scoreeval-{request.state.request_id}", model=model.name, scores=found)

    return router
