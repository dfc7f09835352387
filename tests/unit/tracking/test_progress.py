import logging

import pytest

from ivcp.tracking import progress


@pytest.fixture
def clock(monkeypatch):
    """Each look at the clock finds two more seconds gone."""
    now = iter(range(0, 1000, 2))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))


@pytest.mark.usefixtures("clock")
def test_lines_say_how_fast_and_how_long_the_rest_takes(caplog):
    caplog.set_level(logging.INFO)
    assert list(progress.with_progress("abcd", total=100, what="clips prepared")) == list("abcd")

    assert caplog.messages[0].startswith("clips prepared: 3 of 100 (")
    assert "per second, 0:0" in caplog.messages[0]
    assert caplog.messages[-1].startswith("clips prepared: 4 in ")


def test_the_words():
    assert progress.describe(120, 400, 3.0) == "120 of 400 (40.0 per second, 0:00:07 left)"


def test_a_bar_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    assert list(progress.with_progress(range(5), total=5, what="clips prepared")) == list(range(5))
    shown = capsys.readouterr().err
    assert "clips prepared" in shown
    assert "5/5" in shown
