"""`ivcp run` of settings that ask for several trainings."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from ivcp.cli.terminal import say, show_table

if TYPE_CHECKING:
    from ivcp.pipeline_runs.series.members import Member
    from ivcp.pipeline_runs.summary import RunSummary
    from ivcp.records.series import SeriesResult
    from ivcp.settings import RunConfig


def run_series(config: RunConfig, runs_dir: Path, *, deploy: bool, containers: bool, fresh: bool) -> str:
    """Checks all trainings before the first one begins, runs them, and shows their result.

    Returns what they came to: the status of the run that was interrupted or that exports the chosen model, else
    `measured`, for the gate decides nothing where nothing is exported.

    Raises:
        ConfigError: the settings do not go together with several trainings.
        PipelineFailedError: a training failed.
    """
    from ivcp.checks.run import check_local_run
    from ivcp.cli.console import show_summary
    from ivcp.pipeline_runs.series.run import Series
    from ivcp.pipeline_runs.summary import MEASURED

    def tell(member: Member, summary: RunSummary) -> None:
        top1 = "" if summary.top1_accuracy is None else f", top-1 {summary.top1_accuracy:.3f}"
        say(f"{member.name}: {summary.status}{top1}")

    series = Series(config, runs_dir, deploy=deploy, containers=containers, fresh=fresh, on_end=tell)
    for member in series.members:
        check_local_run(member.config, containers=containers)
    outcome = series.run()
    if outcome.result is None:
        return outcome.last.status
    if outcome.result.chosen:
        show_summary(outcome.last)
    show_series(outcome.result)
    report = f"{outcome.folder}/report.html"
    say(f"{'report':<20}{report}\n{'open the report':<20}python3 -m webbrowser {shlex.quote(report)}")
    return outcome.last.status if outcome.result.chosen else MEASURED


def show_series(result: SeriesResult) -> None:
    """Prints the table that compares the trainings."""
    from rich.table import Table

    from ivcp.cli.console import show_slices
    from ivcp.records.baselines import BASELINE_WORDS

    title = f"{result.title}: {result.num_clips} test clips of {result.num_groups} groups, views: {result.views}"
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for heading in ("top-1", "95 % interval", "mean class", "validation", "clips"):
        table.add_column(heading, justify="right")
    for member in result.members:
        interval, val = member.interval, member.val_top1_accuracy
        table.add_row(
            f"{member.name} (chosen)" if member.name == result.chosen else member.name,
            f"{member.top1_accuracy:.3f}",
            f"{interval.low:.3f} – {interval.high:.3f}" if interval else "",
            f"{member.mean_class_accuracy:.3f}",
            "" if val is None else f"{val:.3f}",
            str(member.num_clips),
        )
    table.add_section()
    between = result.top1_interval
    table.add_row(
        "all clips" if result.kind == "folds" else "mean",
        f"{result.top1_accuracy:.3f}",
        f"{between.low:.3f} – {between.high:.3f}" if between else "",
        f"{result.mean_class_accuracy:.3f}",
        "",
        str(result.num_clips),
    )
    table.add_row("standard deviation", f"{result.top1_spread:.3f}", "", f"{result.mean_class_spread:.3f}", "", "")
    for name, value in result.baseline_means.items():
        table.add_row(f"beside it: {BASELINE_WORDS[name]}", f"{value:.3f}", "", "", "", "")  # type: ignore[index]
    show_table(table)
    show_slices(result.slices)
    say(f"chosen: {result.chosen}, {result.why}" if result.chosen else f"none is exported: {result.why}")
