"""Tools of a conversation: the functions that its assistant may call, and its calls, in LLaMA-Factory's and OpenAI's
forms."""

from __future__ import annotations

import json
from typing import Any

from ivcp.data.problems import RowError
from ivcp.data.values import is_missing, shown
from ivcp.records import Message

_FUNCTION = '{"name": "…", "parameters": {…}}'
_CALL = '{"name": "…", "arguments": {…}}'


def read_tools(value: Any, column: str) -> tuple[Message, ...]:
    """The turn that lists the tools of a row, from a JSON list of functions or the list itself; none where it has none.

    Raises:
        RowError: they are no functions.
    """
    if is_missing(value):
        return ()
    tools = _parsed(value, column, expected=f"a list of functions, {_FUNCTION}")
    listed = tools if isinstance(tools, list) else [tools]
    functions = []
    for tool in listed:
        inner = tool.get("function", tool) if isinstance(tool, dict) else None
        if not isinstance(inner, dict) or not isinstance(inner.get("name"), str) or not inner["name"]:
            raise RowError(f"{column} has {shown(tool)}: expected functions, {_FUNCTION}", kind=f"{column} function")
        functions.append({"type": "function", "function": inner})
    return (Message(role="tools", content=_written(functions)),) if functions else ()


def read_calls(text: str, what: str) -> Message:
    """A turn of LLaMA-Factory's `function_tag`: the JSON of a call, or of a list of calls.

    Raises:
        RowError: it is none; `what` is what the message calls it.
    """
    calls = _parsed(text, what, expected=f"a call, {_CALL}, or a list of calls")
    listed = calls if isinstance(calls, list) else [calls]
    if not listed:
        raise RowError(f"{what} has no call: expected {_CALL}")
    return Message(role="function", content=_written([_read_call(call, what) for call in listed]))


def read_tool_calls(calls: Any, text: Any, what: str) -> Message:
    """An assistant's turn as OpenAI has it, with `tool_calls` and perhaps a text before them.

    Raises:
        RowError: they are no calls.
    """
    calls = _parsed(calls, what, expected="a list of tool calls")
    parts: list[dict[str, Any]] = [] if is_missing(text) else [{"text": str(text)}]
    for call in calls if isinstance(calls, list) else [calls]:
        inner = call.get("function") if isinstance(call, dict) else None
        parts.append(_read_call(inner, what))
    return Message(role="function", content=_written(parts))


def _read_call(call: Any, what: str) -> dict[str, Any]:
    if not isinstance(call, dict) or not isinstance(call.get("name"), str) or not call["name"]:
        raise RowError(f"{what} has {shown(call)}: expected a call, {_CALL}", kind=f"{what} call")
    arguments = call.get("arguments")
    arguments = {} if is_missing(arguments) else _parsed(arguments, what, expected="arguments by name")
    if not isinstance(arguments, dict):
        raise RowError(f"{what}: arguments = {shown(arguments)}: expected them by name", kind=f"{what} arguments")
    return {"name": call["name"], "arguments": arguments}


def _parsed(value: Any, what: str, *, expected: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise RowError(f"{what} = {shown(value)} is no JSON: expected {expected}", kind=f"{what} JSON") from error


def _written(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
