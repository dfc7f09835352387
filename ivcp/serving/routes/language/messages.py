"""The turns of a request, and their media as files."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Tag, model_validator

from ivcp.data.prompts import TAGS, media_tags
from ivcp.records import MediumKind, Message
from ivcp.serving.http.problems import ProblemError
from ivcp.serving.http.requests import Text, VideoFields, parsed, stored, video_of_url
from ivcp.serving.language.conversations import Conversation
from ivcp.serving.served import VideoSource
from ivcp.serving.service import AnyService

_KINDS: dict[str, MediumKind] = {
    "video_url": "video",
    "image_url": "image",
    "audio_url": "audio",
    "input_audio": "audio",
}
"""Types of the parts that are media."""


@dataclass(frozen=True)
class Medium:
    """A video, an image or a sound of a turn."""

    kind: MediumKind
    url: str


class _Lenient(BaseModel):
    """What clients send along that says nothing of what is asked is left aside."""

    model_config = ConfigDict(extra="ignore", frozen=True)


def _without_tags(text: str) -> str:
    if media_tags(text):
        raise ValueError(f"text must not hold {' or '.join(TAGS.values())}: media are parts of their own")
    return text


SaidText = Annotated[Text, AfterValidator(_without_tags)]
"""What somebody said, beside media."""


class MediaUrl(_Lenient):
    """Where a medium is: a `data:` URI, or an address where this server may read."""

    url: Text


class InputAudio(_Lenient):
    """A sound itself, as OpenAI's API has it."""

    data: Text
    """base64"""
    format: str = "wav"
    """What kind of file it is, such as `wav` or `mp3`; that is found out in any case."""

    @property
    def url(self) -> str:
        """The same as a `data:` URI."""
        if self.data[:5].lower() == "data:":
            return self.data
        name = self.format if self.format.isalnum() and self.format.isascii() else "wav"
        return f"data:audio/{name};base64,{self.data}"


class Part(_Lenient):
    """A part of a turn: text, or a medium."""

    type: str
    text: SaidText | None = None
    video_url: MediaUrl | None = None
    image_url: MediaUrl | None = None
    audio_url: MediaUrl | None = None
    input_audio: InputAudio | None = None

    @model_validator(mode="after")
    def _is_known(self) -> Self:
        if self.type not in ("text", *_KINDS):
            raise ValueError(f"a part of type {self.type[:100]} is not read here: send text or {' or '.join(_KINDS)}")
        if getattr(self, self.type) is None:
            raise ValueError(f"a part of type {self.type} needs {self.type}")
        return self

    @property
    def medium(self) -> Medium | None:
        """The medium; null of text."""
        if self.type == "text":
            return None
        at: MediaUrl | InputAudio = getattr(self, self.type)
        return Medium(_KINDS[self.type], at.url)

    @property
    def content(self) -> str:
        """What a message has of it."""
        return (self.text or "") if self.type == "text" else TAGS[_KINDS[self.type]]


def text_or(name: str) -> Discriminator:
    """Tells text from what is called `name`: errors are those of what was sent, and not of both."""
    return Discriminator(lambda value: "text" if isinstance(value, str) else name)


PlainText = Annotated[SaidText, Tag("text")]


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
    def media(self) -> tuple[Medium, ...]:
        """Its media, in order."""
        return tuple(medium for part in self.parts if (medium := part.medium) is not None)


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
    media, most = [medium for turn in turns for medium in turn.media], service.settings.max_media
    if len(media) > most:
        raise ProblemError(
            "bad_request_fields", f"messages: {len(media)} media came, expected at most {most} (max_media)"
        )
    async with AsyncExitStack() as kept:
        folder = kept.enter_context(service.uploads.folder())
        files = []
        for number, medium in enumerate(media, start=1):
            own = folder / str(number)
            own.mkdir()
            files.append(await kept.enter_async_context(_stored(medium, own, service, number)))
        yield Conversation(tuple(turn.message for turn in turns), tuple(files))


@asynccontextmanager
async def _stored(medium: Medium, folder: Path, service: AnyService, number: int) -> AsyncIterator[VideoSource]:
    async with stored(parsed(VideoFields, video_of_url(medium.url)), folder, service) as file:
        yield replace(file, name=f"{medium.kind} {number}", kind=medium.kind)
