"""`ivcp train` in a process for each GPU: what fails in them is one message here."""

from __future__ import annotations

import sys

import typer

from ivcp.cli.terminal import TRACEBACK, complain


def train_in_processes(words: list[str], processes: int) -> None:
    """Trains with the settings of command-line words, and ends the command where that fails."""
    from ivcp.launch.here import train_here
    from ivcp.launch.torchrun import ProcessesFailedError

    traceback = [TRACEBACK] if TRACEBACK in sys.argv else []
    try:
        train_here([*words, *traceback], processes=processes)
    except ProcessesFailedError as error:
        reasons = list(error.reasons.values())
        told = reasons[0] if len(reasons) == 1 else str(error)
        complain(told)
        raise typer.Exit(error.exit_code) from error
