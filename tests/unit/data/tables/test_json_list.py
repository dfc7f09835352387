import io
import json
from typing import Any

import pytest

from ivcp.data.tables import json_list
from ivcp.data.tables.json_list import iterate_list

VALUES: list[Any] = [{"a": [1, {"b": "x]},"}], "c": None}, 12345, -1.5e3, 'a\n\\"[', [], {}, True, "动作", 7]


@pytest.mark.parametrize("chunk", [1, 2, 7, 1 << 18])
@pytest.mark.parametrize("indent", [None, 2])
def test_gives_what_json_gives_however_the_file_is_cut(
    monkeypatch: pytest.MonkeyPatch, chunk: int, indent: int | None
) -> None:
    monkeypatch.setattr(json_list, "_CHUNK", chunk)
    text = "\n " + json.dumps(VALUES, indent=indent, ensure_ascii=False) + " \n"
    assert list(iterate_list(io.StringIO(text))) == VALUES
    assert list(iterate_list(io.StringIO(" [ ] "))) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"a": 1},\n {"b": }]', "line 2 column 8"),
        ('[{"a": 1}\n{"b": 2}]', "Expecting ',' delimiter: line 2 column 1"),
        ('[{"a": 1},\n]', "trailing comma .*: line 2 column 1"),
        ('[{"a": 1}', "Expecting ',' delimiter"),
        ('[{"a": "cut o', "Unterminated string"),
        ("[1] 2", "Extra data: line 1 column 5"),
        ("", "Expecting '\\['"),
        ('{"a": [1]}', "Expecting '\\[': line 1 column 1"),
    ],
)
def test_what_is_wrong_and_in_which_line(monkeypatch: pytest.MonkeyPatch, text: str, message: str) -> None:
    for chunk in (3, 1000):
        monkeypatch.setattr(json_list, "_CHUNK", chunk)
        with pytest.raises(json.JSONDecodeError, match=message):
            list(iterate_list(io.StringIO(text)))
