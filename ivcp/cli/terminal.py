"""What the command line writes: whole lines and tables, and one message for each failure."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from rich.console import Console
from rich.table import Table

from ivcp.packages import nameless_distributions

FAILED, WRONG_CALL, REFUSED = 1, 2, 3
"""Exit codes: a step failed; the call, a file or a setting is wrong; the gate refused the model."""
TRACEBACK = "--traceback"
"""The word that shows where an error came from."""
_WIDE = 10_000
"""Characters of a line that nobody sees on a terminal."""

console = Console()
_errors = Console(stderr=True)


def say(text: str) -> None:
    """Writes a line as it is: paths are neither wrapped nor coloured."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def complain(text: str, *, style: str = "red") -> None:
    """Writes a message to stderr as it is, in a colour."""
    _errors.print(text, style=style, highlight=False, markup=False, soft_wrap=True)


def show_table(table: Table) -> None:
    """Writes a table: on a terminal in its width, folded; into a file or a pipe as wide as it is, so that nothing is
    cut."""
    wide = console if console.is_terminal else Console(file=console.file, width=_WIDE)
    wide.print(table)


@contextmanager
def explained(*, with_traceback: bool) -> Iterator[None]:
    """Ends the process for an error of the block: its message on stderr, and the exit code that belongs to it."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 (the process's edge)
        if with_traceback:
            complain(traceback.format_exc(), style="none")
        end(error)


def end(error: Exception) -> NoReturn:
    """Writes an error's message, and ends the process."""
    code, message = explain(error)
    complain(message)
    raise SystemExit(code)


def explain(error: Exception) -> tuple[int, str]:
    """The exit code and the message of an error."""
    if isinstance(error, ModuleNotFoundError):
        return WRONG_CALL, (
            f"error: the package {error.name} is not installed here: pip install {error.name}, or install ivcp with "
            "what this command needs: pip install 'ivcp[data,training,serving,pipeline]'"
        )
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return WRONG_CALL, f"error: {error.filename}: {error.strerror}"
    if isinstance(error, TypeError) and (left := nameless_distributions()):
        return FAILED, f"failed: Python cannot read its packages: an interrupted pip install left {left[0]}: remove it"
    if isinstance(error, ValueError | OSError):
        return WRONG_CALL, f"error: {error}"
    if isinstance(error, RuntimeError):
        return FAILED, f"failed: {error}"
    return FAILED, f"failed: {type(error).__name__}: {error} ({TRACEBACK} shows where)"
