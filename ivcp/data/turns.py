"""The conversation of a row: LLaMA-Factory's formats, and OpenAI's with its lists of parts and its tool calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ivcp.data.media import medium_of_part
from ivcp.data.problems import RowError
from ivcp.data.prompts import TAGS, VIDEO_TAG
from ivcp.data.registry import DatasetInfo, Tags
from ivcp.data.tools import read_calls, read_tool_calls, read_tools
from ivcp.data.values import as_list, is_missing, offered, shown
from ivcp.records import Message, RowKind

_ONE_VIDEO = "a clip is classified by its video alone"
_UNREAD: dict[RowKind, dict[str, str]] = {
    "labels": {"images": _ONE_VIDEO, "audios": _ONE_VIDEO, "tools": _ONE_VIDEO},
    "texts": {"tools": "texts without turns call no tools"},
    "conversations": {},
}
"""The columns that rows of a kind have no use for, and why; pairs and tags are conversations."""


def read_messages(raw: Mapping[str, Any], info: DatasetInfo, *, rows: RowKind = "labels") -> tuple[Message, ...]:
    """The turns of a row.

    Raises:
        RowError: they are not as the registry says, one has no text, or something in them would be dropped.
    """
    check_nothing_is_dropped(raw, info, rows)
    columns = info.columns
    is_alpaca = info.formatting == "alpaca"
    needed = columns.prompt if is_alpaca else columns.messages
    if is_missing(raw.get(needed)) and not (is_alpaca and needed in raw):
        hint = offered(raw, "prompt" if is_alpaca else "messages", needed)
        raise RowError(f"key {needed!r} expected, because formatting is {info.formatting}{hint}")
    with_media = rows != "labels"
    start = read_tools(raw.get(columns.tools), columns.tools) if columns.tools and with_media else ()
    start += _read_system(raw.get(columns.system), columns.system)
    if is_alpaca:
        return start + _read_alpaca(raw, info, with_media=with_media)
    turns = as_list(raw[needed])
    if not turns:
        raise RowError(f"{needed} is empty: expected a list of turns")
    read = [_read_turn(turn, info.tags, number, with_media=with_media) for number, turn in enumerate(turns)]
    return start + tuple(message for message in read if message is not None)


def read_content(content: Any, what: str, *, with_media: bool = False) -> str:
    """The text of a turn; of a list of parts as OpenAI has them, with `<video>` where a part is a video.

    `what` is what messages call it. `with_media` reads images and sounds too, and parts that have the path of
    their medium.

    Raises:
        RowError: there is no text, or a part would be dropped.
    """
    if isinstance(content, list):
        content = "".join(_read_part(part, what, with_media=with_media) for part in content)
    if is_missing(content):
        raise RowError(f"{what} has no text: expected some; leave a turn out where nothing is said")
    if isinstance(content, int) and not isinstance(content, bool):
        return str(content)
    if not isinstance(content, str):
        raise RowError(f"{what} = {shown(content)}: expected text, or a list of parts", kind=what)
    return content


def check_nothing_is_dropped(raw: Mapping[str, Any], info: DatasetInfo, rows: RowKind) -> None:
    """Raises:
    RowError: a row has media or tools that are not read.
    """
    unread = _UNREAD[rows] if rows in _UNREAD else _UNREAD["conversations"]
    for name, why in unread.items():
        column = getattr(info.columns, name)
        value = raw.get(column) if column else None
        if not is_missing(value) and value not in ([], "[]"):
            raise RowError(
                f"{column} = {shown(value)}: {why}, and this would be dropped: "
                f"remove it, or take columns.{name} out of dataset_info.json",
                kind=f"dropped {column}",
            )


def _read_part(part: Any, what: str, *, with_media: bool) -> str:
    given = {key: value for key, value in part.items() if value is not None} if isinstance(part, dict) else {}
    if given == {"type": "video"}:
        return VIDEO_TAG
    medium = medium_of_part(given) if with_media else None
    if medium is not None:
        return TAGS[medium[0]]
    if set(given) == {"type", "text"} and given["type"] == "text" and isinstance(given["text"], str):
        return str(given["text"])
    hint = "; the video's path stands in the row's videos" if str(given.get("type")).startswith("video") else ""
    if with_media:
        hint = (
            ', {"type": "image"}, {"type": "audio"} or the same with a path, as "video": "a.mp4" or '
            '"image_url": {"url": "a.jpg"}'
        )
    raise RowError(
        f'{what} has the part {shown(part)}: expected {{"type": "video"}} or {{"type": "text", "text": "…"}}{hint}',
        kind=f"{what} part",
    )


def _read_system(system: Any, column: str) -> tuple[Message, ...]:
    return () if is_missing(system) else (Message(role="system", content=read_content(system, column)),)


def _read_alpaca(raw: Mapping[str, Any], info: DatasetInfo, *, with_media: bool) -> tuple[Message, ...]:
    columns = info.columns
    texts = [
        read_content(raw[key], key, with_media=with_media)
        for key in (columns.prompt, columns.query)
        if not is_missing(raw.get(key))
    ]
    if not texts:
        raise RowError(f"{columns.prompt} has no text: expected a question")
    history = raw.get(columns.history)
    pairs = [*([] if is_missing(history) else as_list(history)), ("\n".join(texts), raw.get(columns.response))]
    turns: list[Message] = []
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise RowError(f"{columns.history} = {shown(pair)}: expected pairs of a question and an answer")
        turns.append(Message(role="user", content=read_content(pair[0], columns.history)))
        if not is_missing(pair[1]):
            turns.append(Message(role="assistant", content=read_content(pair[1], columns.response)))
    return tuple(turns)


def _read_turn(turn: Any, tags: Tags, number: int, *, with_media: bool) -> Message | None:
    """One turn; None where the system says nothing."""
    if with_media and isinstance(turn, dict) and not is_missing(turn.get("tool_calls")) and turn["tool_calls"] != []:
        return read_tool_calls(turn["tool_calls"], turn.get(tags.content_tag), f"tool_calls of turn {number}")
    if not isinstance(turn, dict) or tags.role_tag not in turn or tags.content_tag not in turn:
        came = f"keys {', '.join(map(repr, turn))}" if isinstance(turn, dict) else shown(turn)
        raise RowError(
            f"turns with the keys {tags.role_tag!r} and {tags.content_tag!r} expected, {came} came: "
            "set tags.role_tag and tags.content_tag in dataset_info.json"
        )
    role, content = turn[tags.role_tag], turn[tags.content_tag]
    what = f"{tags.content_tag} of turn {number} ({role})"
    if role == tags.user_tag:
        return Message(role="user", content=read_content(content, what, with_media=with_media))
    if role == tags.assistant_tag:
        return Message(role="assistant", content=read_content(content, what, with_media=with_media))
    if role == tags.system_tag:
        return next(iter(_read_system(content, what)), None)
    if with_media and role == tags.function_tag:
        return read_calls(read_content(content, what), what)
    if with_media and role == tags.observation_tag:
        return Message(role="observation", content=read_content(content, what, with_media=True))
    if role in (tags.observation_tag, tags.function_tag):
        raise RowError(f"{tags.role_tag} = {role!r}: turns of tools have no meaning for a clip: leave them out")
    raise RowError(
        f"{tags.role_tag} = {shown(role)}: expected {tags.user_tag!r}, {tags.assistant_tag!r} or {tags.system_tag!r}: "
        "set tags.user_tag and tags.assistant_tag in dataset_info.json"
    )
