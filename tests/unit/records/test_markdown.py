import pytest

from ivcp.records.markdown import code, escape


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("stand up", "stand up"),
        ("a|b", r"a\|b"),
        ("<script>alert(1)</script>", r"\<script\>alert\(1\)\</script\>"),
        ("![x](http://a/b.png)", r"\!\[x\]\(http://a/b.png\)"),
        ("two\nlines\n# title", r"two lines \# title"),
        ("snake_case*", r"snake\_case\*"),
        ("&amp;", r"\&amp;"),
    ],
)
def test_other_peoples_text_is_shown_as_it_is(text: str, shown: str) -> None:
    assert escape(text) == shown


def test_a_code_span_ends_behind_its_text() -> None:
    assert code("user: <video>") == "`user: <video>`"
    assert code("a `b` ``c``") == "``` a `b` ``c`` ```"
    assert code("two\nlines") == "`two lines`"
