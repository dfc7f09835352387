"""Rows that train a model to write: conversations with an answer, with two of them, with a tag, and plain texts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from ivcp.data.problems import RowError
from ivcp.data.prompts import AUDIO_TAG, IMAGE_TAG, check_media_tags, check_no_other_tokens, media_tags
from ivcp.data.registry import DatasetInfo, Tags
from ivcp.data.turns import check_nothing_is_dropped, read_content, read_messages
from ivcp.data.values import is_missing, offered, shown
from ivcp.records import Message, RowKind

_TAG_WORDS = {"true": True, "false": False}
"""What stands in the cells of text files."""


@dataclass(frozen=True)
class Conversation:
    """What a row says beside its media."""

    messages: tuple[Message, ...]
    """The last turn is the answer that is learned, or the better one of two; a text is one turn of the assistant."""
    rejected: str | None = None
    """The other one of two answers."""
    desirable: bool | None = None
    """Whether the answer is a good one, where a tag says so."""

    @property
    def text(self) -> str:
        """All that is said."""
        return "".join((*(message.content for message in self.messages), self.rejected or ""))


def read_conversation(raw: Mapping[str, Any], info: DatasetInfo, rows: RowKind) -> Conversation:
    """What a row of a kind without labels says.

    Raises:
        RowError: it is not as the registry says, lacks what its kind needs, or something in it would be dropped.
    """
    if rows == "texts":
        return Conversation((_read_text(raw, info),))
    columns = info.columns
    messages = read_messages(raw, info, rows=rows)
    if rows == "pairs":
        return _read_pair(raw, info, messages)
    _check_turns(messages)
    return Conversation(messages, desirable=_read_tag(raw, str(columns.kto_tag)) if rows == "tags" else None)


def check_conversation(
    conversation: Conversation,
    rows: RowKind,
    *,
    num_videos: int,
    num_images: int,
    num_audios: int,
    action_token: str,
    special_tokens: re.Pattern[str],
) -> None:
    """Checks that there is one tag per video, image and sound, none of them in an answer, and no special token.

    The action token is plain text here. In texts without turns, media may stand anywhere.

    Raises:
        PromptError: there is another number of tags, or a special token.
        RowError: a tag stands in an answer.
    """
    check_no_other_tokens(
        conversation.text, allowed=(action_token, IMAGE_TAG, AUDIO_TAG), special_tokens=special_tokens
    )
    answers = [each.content for each in conversation.messages if each.is_answer or each.role == "tools"]
    misplaced = media_tags("".join((*answers, conversation.rejected or "")))
    if rows != "texts" and misplaced:
        raise RowError(
            f"<{misplaced[0]}> stands in an answer, and a model cannot write one: move it to the user's turn, or write "
            "the word in another way"
        )
    check_media_tags(conversation.text, num_videos=num_videos, num_images=num_images, num_audios=num_audios)


def _check_turns(messages: Sequence[Message]) -> None:
    turns = [turn for turn, before in zip(messages, (None, *messages), strict=False) if not _goes_on(turn, before)]
    for role in ("tools", "system"):
        if turns and turns[0].role == role:
            turns.pop(0)
    for number, (turn, expected) in enumerate(zip(turns, cycle(("user", "assistant")), strict=False)):
        is_expected = turn.is_answer if expected == "assistant" else turn.role in ("user", "observation")
        if not is_expected:
            raise RowError(
                f"turn {number} is the {turn.role}'s, expected the {expected}'s: a system text stands in front, then "
                "user (or observation) and assistant (or function call) take turns",
                kind="turns",
            )
        called = number > 0 and turns[number - 1].role == "function"
        if expected == "user" and (turn.role == "observation") != called:
            raise RowError("an observation stands behind each function call, and nowhere else", kind="observation")
    if not turns or not turns[-1].is_answer:
        raise RowError(
            "there is no answer: expected the assistant's turn at the end. Answers to choose from (ranking: true) are "
            "for stage: dpo and rm, texts without turns for stage: pt"
        )


def _goes_on(turn: Message, before: Message | None) -> bool:
    """Whether a turn is another observation of the calls that the one before it is of."""
    return before is not None and turn.role == before.role == "observation"


def _read_pair(raw: Mapping[str, Any], info: DatasetInfo, messages: tuple[Message, ...]) -> Conversation:
    columns = info.columns
    chosen, rejected = (_read_answer(raw, str(name), info) for name in (columns.chosen, columns.rejected))
    if messages[-1].is_answer:
        raise RowError(
            f"the conversation ends with an answer: with ranking: true it ends with the user's turn, and the answers "
            f"stand in {columns.chosen} and {columns.rejected}"
        )
    if chosen.strip() == rejected.strip():
        raise RowError(f"{columns.chosen} and {columns.rejected} are the same: one has to be better than the other")
    answered = (*messages, Message(role="assistant", content=chosen))
    _check_turns(answered)
    return Conversation(answered, rejected=rejected)


def _read_answer(raw: Mapping[str, Any], column: str, info: DatasetInfo) -> str:
    tags = info.tags
    value = _as_turn(raw.get(column), tags)
    if is_missing(value) or value == {}:
        raise RowError(f"{column} is missing: expected an answer{offered(raw, column, column)}")
    if isinstance(value, dict):
        if value.get(tags.role_tag) != tags.assistant_tag or tags.content_tag not in value:
            raise RowError(
                f"{column} = {shown(value)}: expected a text, or a turn of the assistant, "
                f'{{"{tags.role_tag}": "{tags.assistant_tag}", "{tags.content_tag}": "…"}}',
                kind=f"{column} turn",
            )
        value = value[tags.content_tag]
    return read_content(value, column, with_media=True)


def _as_turn(value: Any, tags: Tags) -> Any:
    """A turn, where a cell of a text file holds one as JSON; anything else as it is."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        with suppress(ValueError, RecursionError):
            turn = json.loads(value)
            if {tags.role_tag, tags.content_tag} <= turn.keys():
                return turn
    return value


def _read_tag(raw: Mapping[str, Any], column: str) -> bool:
    tag = raw.get(column)
    if isinstance(tag, bool):
        return tag
    word = tag.strip().lower() if isinstance(tag, str) else None
    if word in _TAG_WORDS:
        return _TAG_WORDS[word]
    if is_missing(tag):
        raise RowError(f"{column} is missing: expected true or false{offered(raw, 'kto_tag', column)}")
    raise RowError(f"{column} = {shown(tag)}: expected true (a good answer) or false", kind=f"{column} no tag")


def _read_text(raw: Mapping[str, Any], info: DatasetInfo) -> Message:
    check_nothing_is_dropped(raw, info, "texts")
    columns = info.columns
    for column in (columns.response, columns.history, columns.system):
        if not is_missing(raw.get(column)) and raw[column] not in ([], "[]"):
            raise RowError(
                f"{column} = {shown(raw[column])}: stage: pt reads texts without turns, and this would be dropped: use "
                f"stage: sft, or put all of the text into {columns.prompt}",
                kind=f"dropped {column}",
            )
    texts = [
        read_content(raw[key], key, with_media=True)
        for key in (columns.prompt, columns.query)
        if not is_missing(raw.get(key))
    ]
    if not texts:
        raise RowError(f"{columns.prompt} has no text: expected some{offered(raw, 'text', columns.prompt)}")
    return Message(role="assistant", content="\n".join(texts))
