"""vLLM's `/classify`, for clients that were written for it.

The shapes are those of the classification API of vLLM 0.32 (docs.vllm.ai): `messages` as in a chat, one
entry of `data` for each input.
"""

from __future__ import annotations

import time
from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from ivcp.records import Labels
from ivcp.serving.http.problems import ProblemError
from ivcp.serving.http.requests import PredictRequest, Text, parsed, read_json, stored, video_of_url
from ivcp.serving.http.timings import current_timings
from ivcp.serving.routes.openapi import OF_PREDICTIONS, body_of
from ivcp.serving.routes.predict import answer
from ivcp.serving.service import ClassifierService

_EXAMPLE = {
    "model": "action-classifier",
    "messages": [
        {"role": "user", "content": [{"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}}]}
    ],
}


class _Lenient(BaseModel):
    """vLLM takes fields that it does not know, and so does this."""

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())


class VideoUrl(_Lenient):
    """Where a video is."""

    url: Text


class ContentPart(_Lenient):
    """A part of a turn."""

    type: Literal["text", "video_url"]
    text: Text | None = None
    video_url: VideoUrl | None = None


class ChatTurn(_Lenient):
    """One turn of the conversation."""

    role: Literal["system", "developer", "user"]
    content: str | tuple[ContentPart, ...]


class ClassifyRequest(_Lenient):
    """One classification."""

    model: Text | None = None
    messages: tuple[ChatTurn, ...] = Field(min_length=1)
    use_activation: bool | None = None
    """Whether `probs` are probabilities, the default, or logits."""
    media_io_kwargs: dict[str, Any] | None = None
    mm_processor_kwargs: dict[str, Any] | None = None
    """Other frames, or other sizes of them, than the model was trained with: there are none."""


class ClassifiedVideo(BaseModel):
    """What one input was classified as."""

    index: int
    label: str
    probs: tuple[float, ...]
    num_classes: int


class Usage(BaseModel):
    """Tokens, as OpenAI's clients want them."""

    prompt_tokens: int = 0
    total_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: None = None


class ClassifyReply(BaseModel):
    """All inputs."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: tuple[ClassifiedVideo, ...]
    usage: Usage = Usage()


def routes(service: ClassifierService) -> APIRouter:
    """Of `/classify`."""
    router = APIRouter(tags=["vLLM"])

    @router.post("/classify", responses=OF_PREDICTIONS, openapi_extra=body_of(None, ClassifyRequest, _EXAMPLE))
    async def classify(request: Request) -> ClassifyReply:
        """Classifies the video of a chat, as vLLM does; `probs` are those of all classes, by label."""
        asked = await read_json(request, ClassifyRequest)
        body = _as_request(asked)
        with service.using(asked.model) as model:
            _check_one_class(model.predictor.model.labels)
        timings = current_timings()
        with service.uploads.folder() as folder:
            async with stored(body, folder, service) as video:
                said = await answer(service, video, body, timings)
        with service.using(asked.model) as model:
            logits = said.logits
            probs = logits if asked.use_activation is False else model.predictor.probabilities(logits)
        return ClassifyReply(
            id=f"classify-{request.state.request_id}",
            created=int(time.time()),
            model=said.model.name,
            data=(ClassifiedVideo(index=0, label=said.words, probs=probs, num_classes=len(logits)),),
            usage=Usage(prompt_tokens=timings.tokens, total_tokens=timings.tokens),
        )

    return router


def _check_one_class(labels: Labels) -> None:
    """vLLM's answer has one label, and probabilities that add up to 1."""
    if labels.kind != "class":
        raise ProblemError(
            "bad_request_fields",
            "model: its answer is not one class, which /classify has no shape for: ask /v1/predict",
        )


def _as_request(asked: ClassifyRequest) -> PredictRequest:
    """The chat's one video, and its text as the question where it has some."""
    for field in ("media_io_kwargs", "mm_processor_kwargs"):
        if getattr(asked, field):
            raise ProblemError(
                "bad_request_fields", f"{field}: frames are chosen and sized as in training: leave it out"
            )
    parts = [part for turn in asked.messages if not isinstance(turn.content, str) for part in turn.content]
    urls = [part.video_url.url for part in parts if part.video_url is not None]
    if len(urls) != 1:
        raise ProblemError("bad_request_fields", f"messages: {len(urls)} video_url parts came, expected one")
    said = [turn.content for turn in asked.messages if isinstance(turn.content, str) and turn.role == "user"]
    said += [part.text for part in parts if part.text]
    values = {"model": asked.model, "prompt": "\n".join(said) or None, "top_k": 1}
    return parsed(PredictRequest, values | video_of_url(urls[0]))
