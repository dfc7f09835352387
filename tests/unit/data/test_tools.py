"""Functions that an assistant may call, its calls, and what came of them, in both forms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ivcp.data.problems import AnnotationError
from tests.data_sets import DataSet
from tests.unit.data.test_conversations import read_file, said

FUNCTION = {"name": "find", "description": "Finds things.", "parameters": {"type": "object", "properties": {}}}
TOOLS = {"role": "tools", "functions": [{"type": "function", "function": FUNCTION}]}
SHAREGPT = {
    "tools": json.dumps([FUNCTION]),
    "system": "Be brief.",
    "conversations": [
        {"from": "human", "value": "<image>Where is it?"},
        {"from": "function_call", "value": json.dumps({"name": "find", "arguments": {"what": "it"}})},
        {"from": "observation", "value": '{"place": "here"}'},
        {"from": "gpt", "value": "Here."},
    ],
    "images": ["a.png"],
}
OPENAI = {
    "tools": [{"type": "function", "function": FUNCTION}],
    "messages": [
        {"role": "user", "content": "Where are both?"},
        {
            "role": "assistant",
            "content": "Let me look.",
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "find", "arguments": '{"what": "a"}'}},
                {"id": "2", "type": "function", "function": {"name": "find", "arguments": '{"what": "b"}'}},
            ],
        },
        {"role": "tool", "tool_call_id": "1", "content": "here"},
        {"role": "tool", "tool_call_id": "2", "content": "there"},
        {"role": "assistant", "content": "Here and there."},
    ],
}
COLUMNS = {"columns": {"tools": "tools", "images": "images"}}


def read(folder: Path, row: dict[str, Any], **entry: Any) -> list[tuple[str, Any]]:
    found = said(read_file(DataSet(folder).add("d", [row], **COLUMNS, **entry), "conversations"))
    return [(role, json.loads(text) if role in ("tools", "function") else text) for role, text in found]


def test_llama_factorys_form(tmp_path: Path) -> None:
    assert read(tmp_path, SHAREGPT) == [
        ("tools", TOOLS["functions"]),
        ("system", "Be brief."),
        ("user", "<image>Where is it?"),
        ("function", [{"name": "find", "arguments": {"what": "it"}}]),
        ("observation", '{"place": "here"}'),
        ("assistant", "Here."),
    ]


def test_openais_form(tmp_path: Path) -> None:
    calls = [{"name": "find", "arguments": {"what": what}} for what in "ab"]
    assert read(tmp_path, OPENAI, formatting="openai") == [
        ("tools", TOOLS["functions"]),
        ("user", "Where are both?"),
        ("function", [{"text": "Let me look."}, *calls]),
        ("observation", "here"),
        ("observation", "there"),
        ("assistant", "Here and there."),
    ]


def test_a_call_can_be_the_answer(tmp_path: Path) -> None:
    row = SHAREGPT | {"conversations": SHAREGPT["conversations"][:2]}
    assert read(tmp_path, row)[-1][0] == "function"


def changed(place: int, **turn: Any) -> dict[str, Any]:
    turns = list(SHAREGPT["conversations"])
    turns[place] = turns[place] | turn
    return SHAREGPT | {"conversations": turns}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (SHAREGPT | {"tools": "find(x)"}, "tools = 'find.x.' is no JSON: expected a list of functions"),
        (SHAREGPT | {"tools": [{"description": "x"}]}, "tools has .*: expected functions"),
        (changed(1, value="find it"), r"value of turn 1 \(function_call\) = 'find it' is no JSON: expected a call"),
        (changed(1, value="[]"), "has no call"),
        (changed(1, value='{"arguments": {}}'), "expected a call"),
        (changed(1, value='{"name": "find", "arguments": [1]}'), r"arguments = \[1\]: expected them by name"),
        (changed(2, **{"from": "human"}), "an observation stands behind each function call"),
        (changed(1, **{"from": "gpt"}), "an observation stands behind each function call"),
        (changed(3, **{"from": "observation"}), "there is no answer"),
        (changed(0, **{"from": "observation"}), "an observation stands behind each function call"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        read(tmp_path, row)


def test_texts_call_no_tools(tmp_path: Path) -> None:
    entry = {"formatting": "alpaca", "columns": {"prompt": "text", "tools": "tools"}}
    with pytest.raises(AnnotationError, match="texts without turns call no tools, and this would be dropped"):
        read_file(DataSet(tmp_path).add("d", [{"text": "x", "tools": "[{}]"}], **entry), "texts")
