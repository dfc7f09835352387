"""Text that grows by tokens: whole characters, stop words, no spaces around it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ivcp.inference.growing_text import GrowingText


def of_bytes(tokens):
    """A tokenizer whose tokens are bytes, as byte-level ones fall back to."""
    return bytes(tokens).decode(errors="replace")


def grown(tokens, *, stop=()):
    text, pieces = GrowingText(of_bytes, stop=stop), []
    for token in tokens:
        pieces.append(text.add(token))
        if text.is_stopped:
            break
    pieces.append(text.finish())
    return text, pieces


@given(st.text(max_size=40))
def test_the_pieces_are_the_text(wanted):
    text, pieces = grown(wanted.encode(errors="replace"))
    assert "".join(pieces) == text.text == wanted.encode(errors="replace").decode().strip()


@given(st.binary(max_size=40))
def test_bytes_that_are_no_text_are_handed_on_as_a_whole_would_be(tokens):
    text, _ = grown(tokens)
    assert text.text == of_bytes(tokens).strip()


def test_a_character_comes_when_all_its_bytes_are_there():
    _, pieces = grown("né 動".encode())
    assert pieces == ["n", "", "é", "", "", "", " 動", ""]


@given(st.text("ab \n", max_size=30), st.lists(st.text("ab \n", min_size=1, max_size=4), min_size=1, max_size=3))
def test_the_text_ends_before_the_first_stop_word(wanted, stop):
    text, pieces = grown(wanted.encode(), stop=stop)
    ends = [at for word in stop if (at := wanted.find(word)) >= 0]
    # Several words may begin where only the shorter one is whole yet: the text ends before the one that is whole first.
    whole_first = min((at + len(word), at) for word in stop if (at := wanted.find(word)) >= 0)[1] if ends else None
    assert text.is_stopped == bool(ends)
    assert text.text == wanted[:whole_first].strip()
    assert "".join(pieces) == text.text


def test_what_may_begin_a_stop_word_waits():
    _, pieces = grown(b"one END two ENDING", stop=["ENDE", "ENDING"])
    assert "".join(pieces[:7]) == "one"
    assert "".join(pieces) == "one END two"
