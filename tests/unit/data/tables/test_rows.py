import json
from pathlib import Path

import pytest

from ivcp.data.registry import AnnotationError, read_rows
from ivcp.data.tables import EncodingError, TableError, read_json, read_table, read_text, text

ROWS = [{"path": "甲.mp4", "label": "跑步, outdoors"}, {"path": "b.mp4", "label": 'sit "down"'}]
CELLS = [["path", "label"], *([row["path"], row["label"]] for row in ROWS)]
WITH_A_MARK = ("utf-8-sig", "utf-16", "utf-32")
KNOWN = ("utf-8", *WITH_A_MARK, "utf-16-le", "utf-16-be")


def read_cells(path: Path, *, delimiter: str | None = None, encoding: str | None = None) -> list[list[str]]:
    return [line.cells for line in read_table(path, delimiter=delimiter, encoding=encoding)]


def with_cells(delimiter: str) -> str:
    """As spreadsheets write it."""
    quoted = (
        ['"' + cell.replace('"', '""') + '"' if '"' in cell or "," in cell else cell for cell in row] for row in CELLS
    )
    return "".join(delimiter.join(cells) + "\r\n" for cells in quoted)


FILES = {
    "list.json": json.dumps(ROWS, ensure_ascii=False, indent=2),
    "list.txt": json.dumps(ROWS),
    "lines.jsonl": "\n\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS),
    "comma.csv": with_cells(","),
    "semicolon.csv": with_cells(";"),
    "tab.csv": with_cells("\t"),
    "bar.csv": with_cells("|"),
    "tab.TSV": with_cells("\t"),
    "tab.tab": with_cells("\t"),
    "comma.tsv": with_cells(","),
    "blank.csv": "\n" + with_cells(",") + "\n\n",
}


@pytest.mark.parametrize("encoding", KNOWN)
@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_in_every_encoding_that_needs_no_name(tmp_path: Path, name: str, encoding: str) -> None:
    (tmp_path / name).write_bytes(FILES[name].encode(encoding))
    assert list(read_rows(tmp_path / name)) == ROWS


@pytest.mark.parametrize("encoding", [*KNOWN, "gb18030", "gbk", "utf8"])
def test_an_encoding_with_its_name(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "clips.txt"
    path.write_bytes(FILES["semicolon.csv"].encode(encoding))
    assert read_cells(path, encoding=encoding) == CELLS
    assert read_text(path, encoding=encoding).splitlines()[0] == "path;label"
    if encoding in WITH_A_MARK:
        assert read_cells(path, encoding="utf-8") == CELLS


def test_a_western_table(tmp_path: Path) -> None:
    path = tmp_path / "clips.csv"
    path.write_bytes("path;label\nä.mp4;frühstücken – müde\n".encode("cp1252"))
    assert read_cells(path, encoding="cp1252")[1] == ["ä.mp4", "frühstücken – müde"]


@pytest.mark.parametrize("name", ["list.json", "lines.jsonl", "comma.csv"])
@pytest.mark.parametrize(("encoding", "byte"), [("gb18030", "0xbc"), ("cp1252", "0xe4")])
def test_an_encoding_without_its_name_is_refused_with_the_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, encoding: str, byte: str
) -> None:
    monkeypatch.setattr(text, "_CHUNK_BYTES", 7)
    content = FILES[name] if encoding == "gb18030" else FILES[name].replace("甲", "ä").replace("跑步", "run")
    line = next(number for number, line in enumerate(content.splitlines(), 1) if "mp4" in line)
    (tmp_path / name).write_bytes(content.encode(encoding))
    with pytest.raises(
        AnnotationError,
        match=rf"{name}: expected text in utf-8, got the byte {byte} in line {line}: convert it to UTF-8",
    ):
        list(read_rows(tmp_path / name))


def test_encodings_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("path,label\nä.mp4,run\n", encoding="utf-8")
    with pytest.raises(EncodingError, match=r"expected text in ascii, got the byte 0xc3 in line 2"):
        read_cells(path, encoding="ascii")
    with pytest.raises(EncodingError, match=r"expected text in utf-16, got no byte order mark"):
        read_cells(path, encoding="utf-16")
    for encoding in ("klingon", "base64"):
        with pytest.raises(TableError, match=f"no encoding is named '{encoding}': expected a name as utf-8, gb18030"):
            read_cells(path, encoding=encoding)
    path.write_bytes("path,label\na.mp4,跑".encode()[:-1])
    with pytest.raises(EncodingError, match=r"got a character that is cut off in line 2"):
        read_cells(path)


def test_a_delimiter_that_is_named_wins(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("path label,x\n")
    assert read_cells(path) == [["path label", "x"]]
    assert read_cells(path, delimiter=" ") == [["path", "label,x"]]
    path.write_text('"Name, full";label\n')
    assert read_cells(path) == [["Name, full", "label"]]
    path.write_text("one column; really\n")
    assert read_cells(path, delimiter=",") == [["one column; really"]]


def test_lines_that_are_shorter_or_longer_than_the_header(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b\n1\n1,2,,\n\n4,5\n")
    assert list(read_rows(tmp_path / "a.csv")) == [{"a": "1", "b": None}, {"a": "1", "b": "2"}, {"a": "4", "b": "5"}]
    (tmp_path / "a.csv").write_text("")
    assert list(read_rows(tmp_path / "a.csv")) == []


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", '["run", "sit"]', "row 0: expected an object with keys, got str"),
        ("a.json", '[{"a": 1}, 2]', "row 1: expected an object with keys, got int"),
        ("a.json", '{"a": [1]}', "got one object with the keys a: put its rows into a list"),
        ("a.json", '[{"a": 1},\n {"b": }]', "is not valid JSON: Expecting value: line 2 column 8"),
        ("a.jsonl", '{"a": 1}\n\n{"a": \n', "line 3 is not valid JSON"),
        ("a.jsonl", '{"a": 1}\n[1]\n', "row 1: expected an object with keys, got list"),
        ("a.jsonl", '{"a": 1}\n{"a": ' + "1" * 5000 + "}\n", "line 2 holds a number of thousands of digits"),
        ("a.json", '[{"a": 1}, {"a": ' + "1" * 5000 + "}]", "row 1 holds a number of thousands of digits"),
        ("a.json", '[{"a": 1}, ' + "[" * 100_000, "row 1 is nested too deeply"),
        (
            "a.json",
            '{\n "a": 1}\n',
            "line 1 is not valid JSON (Expecting property name enclosed in double quotes in col",
        ),
        (
            "a.csv",
            "a,b\n1,2, 3\n",
            "line 2 has 3 cells, the header 2 ('1, 2,  3'): put a text that holds the delimiter in quotes",
        ),
    ],
)
def test_what_is_wrong_and_where(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(AnnotationError) as caught:
        list(read_rows(tmp_path / name))
    assert str(caught.value).startswith(str(tmp_path / name))
    assert message in str(caught.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=r"gone.csv does not exist: expected an annotation file"):
        list(read_rows(tmp_path / "gone.csv"))
    with pytest.raises(TableError, match="is a folder: expected an annotation file"):
        read_text(tmp_path)


def test_json_files_are_read_whole(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"名": 1}', encoding="utf-16")
    assert read_json(tmp_path / "a.json") == {"名": 1}
    (tmp_path / "a.json").write_text('{"a":\n')
    with pytest.raises(TableError, match=r"a.json is not valid JSON: Expecting value: line 2 column 1"):
        read_json(tmp_path / "a.json")


def test_rows_come_before_the_rest_of_the_file_is_read(tmp_path: Path) -> None:
    for name, start in (("a.csv", "a\n1\n"), ("a.jsonl", '{"a": "1"}\n'), ("a.json", '[{"a": "1"},')):
        (tmp_path / name).write_bytes(start.encode() + b" " * 2_000_000 + b"\xff")
        assert next(read_rows(tmp_path / name)) == {"a": "1"}
