"""The conversation of a sample, and where the action token stands in it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from ivcp.records import MediumKind, Message

VIDEO_TAG = "<video>"
IMAGE_TAG = "<image>"
AUDIO_TAG = "<audio>"
TAGS: dict[MediumKind, str] = {"video": VIDEO_TAG, "image": IMAGE_TAG, "audio": AUDIO_TAG}
"""What stands in a text for a medium of each kind."""
_TAG = re.compile("<(video|image|audio)>")
_AUDIO_PART = {"type": "audio", "audio": ""}
"""Some chat templates (Qwen2-Audio's) tell a sound by its key."""
_PLACEHOLDERS = (
    *("<image>", "<audio>", "<img>", "</img>", "<IMG_CONTEXT>", "<image_pad>", "<video_pad>", "[IMG]"),
    *("<image_soft_token>", "<start_of_image>", "<end_of_image>", "<im_start>", "<im_end>", "<vi_start>", "<vi_end>"),
    *("<fake_token_around_image>", "<global-img>"),
)
"""What models and data sets put where media stand; `<|…|>` is known as such."""


def special_tokens_pattern(of_the_model: Iterable[str] = ()) -> re.Pattern[str]:
    """Finds what a prompt may not hold as text: placeholders of media, turns, and the special tokens of a model."""
    names = sorted({*_PLACEHOLDERS, *of_the_model}, key=len, reverse=True)
    return re.compile("|".join((r"<\|[^<>|\s]+\|>", *map(re.escape, names))))


SPECIAL_TOKENS = special_tokens_pattern()
"""Of whatever model."""


class PromptError(ValueError):
    """A conversation that cannot be classified; the message says what was expected and what came."""


def check_prompt(
    messages: Sequence[Message],
    *,
    action_token: str,
    num_videos: int = 1,
    special_tokens: re.Pattern[str] = SPECIAL_TOKENS,
) -> None:
    """Checks that the action token stands exactly once, behind one `<video>` tag per video, and no other token.

    `special_tokens` finds the others: see `special_tokens_pattern`.

    Raises:
        PromptError: it does not.
    """
    text = "".join(message.content for message in messages)
    check_no_other_tokens(text, allowed=(action_token,), special_tokens=special_tokens)
    tokens = text.count(action_token)
    if tokens == 0:
        raise PromptError(
            f"{action_token} is missing: put it where the state is read, e.g. at the end of the user's turn"
        )
    if tokens > 1:
        raise PromptError(f"{action_token} stands {tokens} times: a sample is classified at exactly one")
    check_media_tags(text, num_videos=num_videos)
    if text.rfind(VIDEO_TAG) > text.index(action_token):
        raise PromptError(f"{VIDEO_TAG} stands behind {action_token}: the token could not see the clip")


def check_media_tags(text: str, *, num_videos: int, num_images: int = 0, num_audios: int = 0) -> None:
    """Checks that a text has one `<video>` tag per video, one `<image>` tag per image, and one `<audio>` tag per sound.

    Raises:
        PromptError: it has another number of them.
    """
    numbers: dict[MediumKind, int] = {"video": num_videos, "image": num_images, "audio": num_audios}
    for kind, number in numbers.items():
        tags = text.count(TAGS[kind])
        if tags != number:
            raise PromptError(f"{tags} {TAGS[kind]} tag(s) for {number} {kind}(s): their numbers must agree")


def media_tags(text: str) -> tuple[MediumKind, ...]:
    """The kinds of the media that a text has tags for, in their order."""
    return tuple(found.group(1) for found in _TAG.finditer(text))  # type: ignore[misc]


def check_no_other_tokens(text: str, *, allowed: Iterable[str], special_tokens: re.Pattern[str]) -> None:
    """Checks that a text holds no special tokens but `<video>` and those that are `allowed`.

    Raises:
        PromptError: it does.
    """
    strange = sorted(set(special_tokens.findall(text)) - {*allowed, VIDEO_TAG})
    if strange:
        raise PromptError(
            f"the prompt holds {', '.join(strange)}, which the model reads as its own token and not as text: remove "
            f"it; {VIDEO_TAG} stands where the video goes, and the chat template writes the rest"
        )


def cut_behind_action(messages: Sequence[Message], *, action_token: str) -> tuple[Message, ...]:
    """The conversation up to and including the action token: a causal model sees nothing behind it."""
    kept: list[Message] = []
    for message in messages:
        before, found, _ = message.content.partition(action_token)
        if found:
            return (*kept, Message(role=message.role, content=before + action_token))
        kept.append(message)
    raise PromptError(f"{action_token} is missing")


def render_conversation(processor: Any, messages: Sequence[Message], *, add_generation_prompt: bool = False) -> str:
    """The text of a whole conversation: the processor's chat template, with a placeholder for each `<video>`,
    `<image>` and `<audio>` tag, and with the tools that may be called.

    Raises:
        PromptError: the chat template leaves tools out.
    """
    turns = [_turn(message) for message in messages if message.role != "tools"]
    tools = [tool for message in messages if message.role == "tools" for tool in json.loads(message.content)]
    options = {"tools": tools} if tools else {}
    text: str = processor.apply_chat_template(
        turns, tokenize=False, add_generation_prompt=add_generation_prompt, **options
    )
    missing = [name for tool in tools if (name := tool["function"]["name"]) not in text]
    if missing:
        raise PromptError(
            f"the model's chat template writes nothing of the tool {missing[0]}: expected one that knows tools, such "
            "as Qwen3-VL's; take a model with such a template (chat_template.jinja), or rows without tools"
        )
    return text


def render_prompt(processor: Any, messages: Sequence[Message], *, action_token: str) -> str:
    """The text that the model reads: the processor's chat template, ending in the action token.

    `processor` is a transformers processor; each `<video>` tag becomes its video placeholder.
    """
    kept = cut_behind_action(messages, action_token=action_token)
    text = render_conversation(processor, kept)
    return text[: text.rindex(action_token) + len(action_token)]


def render_answer(processor: Any, messages: Sequence[Message], *, action_token: str) -> tuple[str, str]:
    """The text behind the action token: what leads to the answer, and the answer with its end of turn.

    Both are empty where the conversation holds no answer.
    """
    kept = cut_behind_action(messages, action_token=action_token)
    is_assistants = kept[-1].role == "assistant"
    if not is_assistants and len(messages) == len(kept):
        return "", ""
    tail = _tail(processor, messages, action_token)
    if is_assistants:
        return "", tail
    header = _tail(processor, messages[: len(kept)], action_token, add_generation_prompt=True)
    return (header, tail[len(header) :]) if tail.startswith(header) else ("", tail)


def _tail(processor: Any, messages: Sequence[Message], action_token: str, **options: bool) -> str:
    text = render_conversation(processor, messages, **options)
    return text[text.rindex(action_token) + len(action_token) :]


def _turn(message: Message) -> dict[str, Any]:
    """A turn as chat templates have it."""
    if message.role == "observation":
        return {"role": "tool", "content": _content(message.content)}
    if message.role != "function":
        return {"role": message.role, "content": _content(message.content)}
    parts = json.loads(message.content)
    return {
        "role": "assistant",
        "content": [{"type": "text", "text": part["text"]} for part in parts if "text" in part],
        "tool_calls": [{"type": "function", "function": part} for part in parts if "name" in part],
    }


def _content(text: str) -> list[dict[str, str]]:
    parts: list[dict[str, str]] = []
    for number, piece in enumerate(_TAG.split(text)):
        if number % 2:
            parts.append(_AUDIO_PART if piece == "audio" else {"type": piece})
        elif piece:
            parts.append({"type": "text", "text": piece})
    return parts
