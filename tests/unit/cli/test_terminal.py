import io

import pytest
from rich.console import Console
from rich.table import Table

from ivcp.cli import terminal
from ivcp.cli.terminal import explain, explained, say, show_table


class OwnError(Exception):
    """An error of another library, of no kind that is known here."""


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ValueError("lora_rank = 0: wrong"), 2, "error: lora_rank = 0: wrong"),
        (FileNotFoundError("no configuration file a.yaml"), 2, "error: no configuration file a.yaml"),
        (
            FileNotFoundError(2, "No such file or directory", "a/b.yaml"),
            2,
            "error: a/b.yaml: No such file or directory",
        ),
        (RuntimeError("training failed"), 1, "failed: training failed"),
        (OwnError("what"), 1, "failed: OwnError: what (--traceback shows where)"),
        (KeyError("a"), 1, "failed: KeyError: 'a' (--traceback shows where)"),
        (
            ModuleNotFoundError("No module named 'peft'", name="peft"),
            2,
            "error: the package peft is not installed here",
        ),
    ],
)
def test_every_error_is_one_message(error, code, message):
    found, said = explain(error)

    assert found == code
    assert said.startswith(message)
    assert "\n" not in said


@pytest.mark.parametrize("with_traceback", [True, False])
def test_a_traceback_is_shown_where_it_was_asked_for(monkeypatch, with_traceback):
    shown = io.StringIO()
    monkeypatch.setattr(terminal, "_errors", Console(file=shown))
    with pytest.raises(SystemExit) as ended, explained(with_traceback=with_traceback):
        raise ValueError("wrong [bold]words[/bold]")

    assert ended.value.code == 2
    assert shown.getvalue().endswith("error: wrong [bold]words[/bold]\n")
    assert ("Traceback" in shown.getvalue()) == with_traceback


def test_long_paths_are_neither_wrapped_nor_cut(monkeypatch):
    shown = io.StringIO()
    monkeypatch.setattr(terminal, "console", Console(file=shown, width=40))
    path = "/data/" + "a" * 300 + "/[1].mp4"
    say(f"report: {path}")
    table = Table("video", "prediction")
    table.add_row(path.replace("[", r"\["), "wave")
    show_table(table)

    assert shown.getvalue().count(path) == 2
