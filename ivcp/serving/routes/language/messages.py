"""The turns of a request, and their media as files."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Tag, model_validator

from ivcp.data.prompts import VIDEO_TAG
from ivcp.records import Message
from ivcp.serving.http.problems import ProblemError
from ivcp.serving.http.requests import Text, VideoFields, parsed, stored, video_of_url
from ivcp.serving.language.conversations import Conversation
from ivcp.serving.served import VideoSource
from ivcp.serving.service import AnyService

_TAGS = {"video_url": VIDEO_TAG}
"""Kinds of media that a turn may have, and what stands for one in the text of a message."""


class _Lenient(BaseModel):
    """What clients send along that says nothing of what is asked is left aside."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class MediaUrl(_Lenient):
    """Where a medium is: a `data:` URI, or an address where this server may read."""

    url: Text


class Part(_Lenient):
    """A part of a turn: text, or a medium."""

    type: str
    text: Text | None = None
    video_url: MediaUrl | None = None

    @model_validator(mode="after")
    def _is_known(self) -> Self:
        if self.type not in ("text", *_TAGS):
            raise ValueError(f"a part of type {self.type[:100]} is not read here: send text or {' or '.join(_TAGS)}")
        if getattr(self, self.type) is None:
            raise ValueError(f"a part of type {self.type} needs {self.type}")
        if self.text and any(tag in self.text for tag in _TAGS.values()):
            raise ValueError(f"text must not hold {' or '.join(_TAGS.values())}: media are parts of their own")
        return self

    @property
    def url(self) -> str | None:
        """Where the medium is; null of text."""
        medium: MediaUrl | None = None if self.type == "text" else getattr(self, self.type)
        return None if medium is None else medium.url

    @property
    def content(self) -> str:
        """What a message has of it."""
        return (self.text or "") if self.type == "text" else _TAGS[self.type]


def text_or(name: str) -> Discriminator:
    """Tells text from what is called `name`: errors are those of what was sent, and not of both."""
    return Discriminator(lambda value: "text" if isinstance(value, str) else name)


PlainText = Annotated[Text, Tag("text")]


class Content(_Lenient):
    """What somebody said."""

    content: Annotated[PlainText | Annotated[tuple[Part, ...], Tag("parts")], text_or("parts")]

    @property
    def parts(self) -> tuple[Part, ...]:
        """Its parts; plain text is one."""
        return (Part(type="text", text=self.content),) if isinstance(self.content, str) else self.content

    @property
    def text(self) -> str:
        """As a message has it."""
        return "".join(part.content for part in self.parts)

    @property
    def urls(self) -> tuple[str, ...]:
        """Of its media, in order."""
        return tuple(url for part in self.parts if (url := part.url) is not None)

    @model_validator(mode="after")
    def _can_be_read(self) -> Self:
        _ = self.parts
        return self


class Turn(Content):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    tool_calls: tuple[Any, ...] | None = None

    @model_validator(mode="after")
    def _calls_nothing(self) -> Self:
        if self.tool_calls:
            raise ValueError("tool_calls: tools are not called here: leave them out")
        return self

    @property
    def message(self) -> Message:
        """The turn as a stage reads it."""
        return Message(role="system" if self.role == "developer" else self.role, content=self.text)


@asynccontextmanager
async def stored_conversation(turns: Sequence[Turn], service: AnyService) -> AsyncIterator[Conversation]:
    """Inside, the media of a conversation are files.

    Raises:
        ProblemError: there are too many, or one of them cannot be read or fetched.
    """
    urls, most = [url for turn in turns for url in turn.urls], service.settings.max_media
    if len(urls) > most:
        raise ProblemError(
            "bad_request_fields", f"messages: {len(urls)} media came, expected at most {most} (max_media)"
        )
    async with AsyncExitStack() as kept:
        folder = kept.enter_context(service.uploads.folder())
        videos = []
        for number, url in enumerate(urls, start=1):
            own = folder / str(number)
            own.mkdir()
            videos.append(await kept.enter_async_context(_stored(url, own, service, f"video {number}")))
        yield Conversation(tuple(turn.message for turn in turns), tuple(videos))


@asynccontextmanager
async def _stored(url: str, folder: Path, service: AnyService, name: str) -> AsyncIterator[VideoSource]:
    async with stored(parsed(VideoFields, video_of_url(url)), folder, service) as video:
        yield replace(video, name=name)
