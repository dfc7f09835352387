"""CSV files as programs and people write them."""

from pathlib import Path

import pytest

from ivcp.data.registry import AnnotationError, read_rows
from ivcp.data.tables import Line, cells, other_delimiter, read_delimiter, read_table


def test_lines_have_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('\n\n a , b\n1,"two\nlines"\n,\n\n3,4,\n', encoding="utf-8-sig")
    assert list(read_table(path)) == [
        Line(3, ["a", "b"]),
        Line(4, ["1", "two\nlines"]),
        Line(8, ["3", "4", ""]),
    ]
    assert list(read_rows(path)) == [{"a": "1", "b": "two\nlines"}, {"a": "3", "b": "4"}]


def test_columns_without_a_name(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(",videos,,\n0,a.mp4,,\n1,b.mp4,,\n")  # as pandas and Excel write them
    assert [row["videos"] for row in read_rows(tmp_path / "a.csv")] == ["a.mp4", "b.mp4"]


def test_columns_of_one_name(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("\nlabel,path,label \nrun,a.mp4,1\n")
    with pytest.raises(AnnotationError, match=r"a.csv line 2: two columns are named label: rename one of them"):
        list(read_rows(tmp_path / "a.csv"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('a,b\n1,"two\n3,4\n', r"lines 2 to 3: no line of a CSV file \(unexpected end of data\): is a quote"),
        ('a,b\n1,2\n3,"4" and 5\n', r"line 3: no line of a CSV file \(',' expected after '\"'\)"),
        ("a,b\n1,2\n\n3,4,5\n", r"line 4 has 3 cells, the header 2 \('3, 4, 5'\): put a text that holds the delimiter"),
    ],
)
def test_what_is_no_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(AnnotationError, match=message):
        list(read_rows(tmp_path / "a.csv"))


def test_a_quote_that_is_never_closed_ends_somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "_MOST_CHARACTERS", 1000)
    (tmp_path / "a.csv").write_text('a,b\n1,"two\n' + "3,4\n" * 1000)
    with pytest.raises(AnnotationError, match=r"lines 2 to 25\d: .*field larger than field limit \(1000\)"):
        list(read_rows(tmp_path / "a.csv"))


def test_delimiters_by_name() -> None:
    assert [read_delimiter(word) for word in ("tab", "\\t", "space", ";", "ab", "")] == [
        "\t",
        "\t",
        " ",
        ";",
        None,
        None,
    ]
    assert [other_delimiter(header) for header in ("a;b", "a\tb", "a b", "ab")] == ["';'", "'\\t'", "' '", None]
