import contextlib
import os
import sys

from ivcp.pipeline_runs.output import tee


def test_the_log_has_everything_and_the_terminal_what_steps_log(tmp_path, capsys):
    for number in (1, 2):  # a run that goes on appends
        with tee(tmp_path / "log"):
            sys.stdout.write(f"    05:08:59 INFO step {number}\nKFP's line\n")
    assert (tmp_path / "log").read_text().count("KFP's line") == 2
    assert capsys.readouterr().out == "05:08:59 INFO step 1\n05:08:59 INFO step 2\n"


def test_a_closed_terminal_does_not_end_a_run(tmp_path, monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    closed = os.fdopen(writer, "w")
    monkeypatch.setattr(sys, "stdout", closed)
    with tee(tmp_path / "log"):
        sys.stdout.write("05:08:59 INFO one\n05:08:59 INFO two\n")
        sys.stdout.flush()
    assert "two" in (tmp_path / "log").read_text()
    monkeypatch.undo()
    with contextlib.suppress(BrokenPipeError):
        closed.close()
