from typing import Any

import pytest

from ivcp.data.problems import RowError
from ivcp.data.registry import DatasetInfo
from ivcp.data.turns import read_messages

TAGS = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
SHAREGPT = DatasetInfo(file_name="a.json", formatting="sharegpt")
OPENAI = DatasetInfo.model_validate(
    {"file_name": "a.json", "formatting": "openai", "columns": {"messages": "messages"}, "tags": TAGS}
)
ALPACA = DatasetInfo(file_name="a.json")


def turns(row: dict[str, Any], info: DatasetInfo) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in read_messages(row, info)]


def user(content: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}]}


def test_parts_are_text_with_a_tag_for_each_video() -> None:
    text = {"type": "text", "text": "What?"}
    assert turns(user([text, {"type": "video"}, text]), OPENAI) == [("user", "What?<video>What?")]
    # As Arrow has them: every part has every key.
    arrow = [{"type": "video", "text": None}, {"type": "text", "text": "What?"}]
    assert turns(user(arrow), OPENAI) == [("user", "<video>What?")]


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"type": "image"}, r"content of turn 0 \(user\) has the part \{'type': 'image'\}: expected"),
        ({"type": "video", "video": "a.mp4"}, "has the part .*; the video's path stands in the row's videos"),
        ({"type": "video_url", "video_url": {"url": "x"}}, "has the part .*; the video's path stands in"),
        ({"type": "text", "text": 3}, "has the part"),
        ("What?", "has the part 'What"),
        (None, "has the part None"),
    ],
)
def test_parts_that_would_be_dropped(part: Any, message: str) -> None:
    with pytest.raises(RowError, match=message):
        read_messages(user([{"type": "video"}, part]), OPENAI)


@pytest.mark.parametrize("nothing", [None, "", "  ", float("nan"), []])
def test_nothing_is_no_text(nothing: Any) -> None:
    asked = {"from": "human", "value": "<video>What?"}
    said = {"from": "gpt", "value": nothing}
    with pytest.raises(RowError, match=r"value of turn 1 \(gpt\) has no text: .* leave a turn out"):
        read_messages({"conversations": [asked, said]}, SHAREGPT)
    with pytest.raises(RowError, match=r"value of turn 0 \(human\) has no text"):
        read_messages({"conversations": [asked | {"value": nothing}]}, SHAREGPT)
    if nothing != []:
        system = {"from": "system", "value": nothing}
        assert turns({"system": nothing, "conversations": [system, asked]}, SHAREGPT) == [("user", "<video>What?")]
        alpaca = {"instruction": "<video>What?", "input": nothing, "output": nothing, "history": nothing}
        assert turns(alpaca, ALPACA) == [("user", "<video>What?")]
        with pytest.raises(RowError, match="history has no text"):
            read_messages(alpaca | {"history": [[nothing, "x"]]}, ALPACA)
        with pytest.raises(RowError, match="instruction has no text: expected a question"):
            read_messages({"instruction": nothing}, ALPACA)
        with pytest.raises(RowError, match="key 'conversations' expected, because formatting is sharegpt"):
            read_messages({"conversations": nothing}, SHAREGPT)


def test_what_is_no_text() -> None:
    assert turns(user(3), OPENAI) == [("user", "3")]
    for content in (True, 2.5, {"text": "x"}):
        with pytest.raises(RowError, match=r"content of turn 0 \(user\) = .*: expected text, or a list of parts"):
            read_messages(user(content), OPENAI)


@pytest.mark.parametrize("name", ["images", "audios", "tools"])
def test_what_would_be_dropped(name: str) -> None:
    info = DatasetInfo.model_validate({"file_name": "a.json", "columns": {name: "extra"}})
    row = {"instruction": "<video>What?"}
    for nothing in (None, "", [], "[]", float("nan")):
        assert turns(row | {"extra": nothing}, info) == [("user", "<video>What?")]
    with pytest.raises(RowError, match=rf"extra = \['a.jpg'\]: .* would be dropped: .* take columns.{name} out"):
        read_messages(row | {"extra": ["a.jpg"]}, info)


def test_rows_of_another_format() -> None:
    row = {"conversations": [{"from": "human", "value": "x"}]}
    with pytest.raises(RowError, match=r"key 'instruction' expected, because formatting is alpaca; the row has conv"):
        read_messages(row, ALPACA)
    with pytest.raises(RowError, match=r"key 'messages' expected, .*; the row has conversations: rename it, or set"):
        read_messages(row, OPENAI)
    with pytest.raises(RowError, match=r"role = \['user'\]: expected 'user', 'assistant' or 'system'"):
        read_messages({"messages": [{"role": ["user"], "content": "x"}]}, OPENAI)
