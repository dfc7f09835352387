"""The command line of `ivcp sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ivcp.cli.paths import new_folder
from ivcp.cli.terminal import say, show_table

if TYPE_CHECKING:
    from ivcp.sweep.result import SweepResult

_SHOWN = 20


def sweep_command(
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FILE.yaml] key=a,b,c key=low..high[:log] [key=value]…",
            help="Settings as elsewhere; those with several values, or a range, are searched.",
            show_default=False,
        ),
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="Trainings in all, those of an interrupted sweep included.")] = 20,
    jobs: Annotated[int, typer.Option(min=1, help="Trainings at once; of several GPUs each has one.")] = 1,
    folder: Annotated[Path, typer.Option(help="Folder of the sweep: clips, trials, sweep.json, best.yaml.")] = Path(
        "runs/sweep"
    ),
) -> None:
    """Search for better settings: short trainings on clips that are prepared once, compared on the validation split.

    Optuna proposes what to try next and gives up what falls behind. The same command again goes on. The test split is
    never looked at: measure the best settings with `ivcp run FOLDER/best.yaml`.

    Example: `ivcp sweep my.yaml learning_rate=1e-5..1e-3:log lora_rank=8,16,32 --trials 20`
    """
    from ivcp.settings.files import read_yaml
    from ivcp.sweep.result import BEST_FILE
    from ivcp.sweep.space import read_space
    from ivcp.sweep.study import run_sweep

    file, given, space = read_space(settings or [])
    of_file = read_yaml(Path(file).expanduser()) if file else {}
    place = new_folder(folder)
    result = run_sweep({**of_file, **given}, space, trials=trials, jobs=jobs, folder=place)
    _show(result)
    say(f"the best settings are in {place / BEST_FILE}: ivcp run {place / BEST_FILE}")


def _show(result: SweepResult) -> None:
    from rich.table import Table

    table = Table(title=f"{len(result.trials)} trials by {result.metric} on validation", title_justify="left")
    for column in ("trial", *result.space, result.metric, "at step", ""):
        table.add_column(column, justify="right")
    for trial in result.trials[:_SHOWN]:
        values = [trial.settings[key] for key in result.space]
        shown = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in values]
        figure = "" if trial.value is None else f"{trial.value:.4g}"
        state = "" if trial.state == "complete" else trial.state
        table.add_row(str(trial.number), *shown, figure, str(trial.step or ""), state)
    show_table(table)
