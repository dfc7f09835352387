"""From a conversation with its videos to a sample, in the worker processes that decode."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jinja2 import TemplateError

from ivcp.data.prepared.sample import Medium, Sample
from ivcp.data.prompts import IMAGE_TAG, PromptError, check_media_tags, check_no_other_tokens
from ivcp.models.families import UnsupportedModelError
from ivcp.models.processor import Processor
from ivcp.records import Message
from ivcp.serving.decoding import ModelFiles, ModelHere, model_here, pictures_by_number
from ivcp.serving.served import VideoSource
from ivcp.video import ClipFrames, Span, VideoError, load_clips, load_image


@dataclass(frozen=True)
class Conversation:
    """What was said, with the videos and images of its tags."""

    messages: tuple[Message, ...]
    videos: tuple[VideoSource, ...] = ()
    """In the order of their tags."""


@dataclass(frozen=True)
class ConversationRequest:
    """Which conversation is wanted as a sample of which model."""

    files: ModelFiles
    conversation: Conversation
    name: str
    """What messages call it."""
    has_answer: bool = False
    """Whether its last turn is an answer, of which the model says how good it is; else it is to be answered."""
    max_seconds: float | None = None
    """Of each whole video; null is any."""


def read_conversation(request: ConversationRequest) -> Sample:
    """Decodes, resizes and tokenizes.

    Raises:
        PromptError: what was said has other tags than there are videos, a token of the model, or turns in an order
            that the model's chat template does not take.
        VideoError: a video cannot be used.
    """
    model, conversation = model_here(request.files), request.conversation
    text = "".join(message.content for message in conversation.messages)
    check_no_other_tokens(text, allowed=(IMAGE_TAG,), special_tokens=model.processor.special_tokens)
    kinds = [medium.kind for medium in conversation.videos]
    check_media_tags(text, num_videos=kinds.count("video"), num_images=kinds.count("image"))
    try:
        clips = [_read(video, model.processor, request.max_seconds) for video in conversation.videos]
        return _sample(model, request, clips)
    except TemplateError as error:
        raise PromptError(f"the model's chat template does not take these turns: {error}") from error
    except UnsupportedModelError as error:
        raise PromptError(f"the model does not take these media: {error}") from error


def _sample(model: ModelHere, request: ConversationRequest, clips: list[ClipFrames]) -> Sample:
    messages = request.conversation.messages
    if not request.has_answer:
        # here: it imports what generation needs
        from ivcp.inference.generation import prompt_sample

        return prompt_sample(model.processor, messages, clips, request.name)
    tokens = model.stage.tokenize(model.processor, messages, clips)
    media = tuple(map(Medium.of, clips))
    return Sample(**vars(tokens), sample_id=request.name, source="", media=media)


def _read(video: VideoSource, processor: Processor, max_seconds: float | None) -> ClipFrames:
    if video.kind == "image":
        return _read_image(video, processor)
    source = [str(path) for path in video.path] if isinstance(video.path, tuple) else video.path
    try:
        with pictures_by_number(video.path):
            (clip,) = load_clips(
                source, [Span()], processor=processor, images_fps=video.images_fps, max_seconds=max_seconds
            )
    except VideoError as error:
        raise VideoError(error.reason, f"{video.name}: {error.detail}") from error
    if isinstance(clip, VideoError):
        raise clip
    return clip


def _read_image(image: VideoSource, processor: Processor) -> ClipFrames:
    if not isinstance(image.path, Path):
        raise VideoError(
            "not_an_image", f"{image.name}: one image was expected, {len(image.path)} came: send a video_url"
        )
    try:
        return load_image(image.path, processor=processor)
    except VideoError as error:
        raise VideoError(error.reason, f"{image.name}: {error.detail}") from error
