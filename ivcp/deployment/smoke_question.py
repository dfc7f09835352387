"""The check of a model that writes, or scores: a conversation that it must answer, or score, as evaluation did."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import httpx
from pydantic import BaseModel, ConfigDict

from ivcp import storage
from ivcp.data.prompts import VIDEO_TAG
from ivcp.records import RUN_CONFIG_FILE
from ivcp.records.language_evaluation import SmokeQuestion
from ivcp.settings import read_model_config

MAX_SCORE_DIFFERENCE, _ROUNDED = 1e-3, 0.05
"""Between the server's score and evaluation's, for each unit of 1 + the score; and where one of them rounds."""


class GivenAnswer(BaseModel):
    """What a server answered."""

    model_config = ConfigDict(frozen=True)

    name: str
    version: str | None
    text: str | None
    score: float | None
    seconds: float


class _Message(BaseModel):
    content: str


class _Choice(BaseModel):
    message: _Message


class _Score(BaseModel):
    score: float


class _Reply(BaseModel):
    model: str
    system_fingerprint: str | None = None
    choices: tuple[_Choice, ...] = ()
    data: tuple[_Score, ...] = ()


def ask_question(client: httpx.Client, question: SmokeQuestion, headers: dict[str, str]) -> httpx.Response:
    """Sends the conversation with its video to the server that `client` is bound to."""
    turns = _turns(question)
    if question.score is not None:
        return client.post("/v1/score", json={"messages": [turns]}, headers=headers)
    body = {"messages": turns, "temperature": 0, "max_tokens": question.num_tokens}
    return client.post("/v1/chat/completions", json=body, headers=headers)


def read_reply(reply: httpx.Response) -> GivenAnswer:
    """What a reply of the status 200 says."""
    said = _Reply.model_validate_json(reply.text)
    return GivenAnswer(
        name=said.model,
        version=said.system_fingerprint,
        text=said.choices[0].message.content if said.choices else None,
        score=said.data[0].score if said.data else None,
        seconds=reply.elapsed.total_seconds(),
    )


def difference_of(given: GivenAnswer, question: SmokeQuestion, *, model_dir: Path) -> str | None:
    """How an answer differs from evaluation's; null where it does not."""
    if question.score is None:
        same = given.text == question.answer
        return None if same else f"the predictor writes {given.text!r}, evaluation's answer begins {question.answer!r}"
    is_rounded = read_model_config(model_dir / RUN_CONFIG_FILE).is_rounded
    most = (_ROUNDED if is_rounded else MAX_SCORE_DIFFERENCE) * (1 + abs(question.score))
    if given.score is not None and abs(given.score - question.score) <= most:
        return None
    return f"the predictor's score is {given.score}, evaluation's {question.score:.6g}, expected within {most:.2g}"


def _turns(question: SmokeQuestion) -> list[dict[str, Any]]:
    """The conversation as the server's routes take it."""
    return [{"role": message.role, "content": [*_parts(message.content, question)]} for message in question.messages]


def _parts(content: str, question: SmokeQuestion) -> list[dict[str, Any]]:
    before, tag, behind = content.partition(VIDEO_TAG)
    parts: list[dict[str, Any]] = [{"type": "text", "text": before}] if before else []
    if tag and question.video is not None:
        data = base64.b64encode(storage.local_path(question.video).read_bytes()).decode()
        parts.append({"type": "video_url", "video_url": {"url": f"data:;base64,{data}"}})
    return [*parts, {"type": "text", "text": behind}] if behind or not parts else parts
