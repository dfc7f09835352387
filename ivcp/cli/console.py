"""What the command line shows of a run."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from ivcp.cli.terminal import say, show_table
from ivcp.pipeline_runs.summary import STEPS, RunSummary
from ivcp.records.baselines import Interval
from ivcp.records.evaluation import EvaluationMetrics
from ivcp.records.language_evaluation import LanguageMetrics, Measured
from ivcp.records.slices import Slice

_Row = tuple[str, float | None, Interval | None]
"""What was measured, the figure, and its interval."""


def show_summary(summary: RunSummary) -> None:
    """Prints a run's table, its accuracies, its paths, and the commands that open them."""
    show_table(_steps_table(summary))
    if summary.metrics is not None:
        show_table(_metrics_table(summary.metrics))
    for name, path in (
        ("validation report", summary.validation_report),
        ("evaluation report", summary.evaluation_report),
        ("adapter", summary.adapter_dir),
        ("model", summary.model_dir),
        ("log", summary.log),
    ):
        if path:
            _say(name, path)
    say("")
    if report := summary.evaluation_report or summary.validation_report:
        _say("open the report", f"python3 -m webbrowser {shlex.quote(report)}")
    if summary.mlflow_tracking_uri.startswith("sqlite:"):
        _say("MLflow", f"mlflow ui --backend-store-uri {shlex.quote(summary.mlflow_tracking_uri)}")
    if summary.mlflow_page:
        _say("its page", summary.mlflow_page)
    if summary.model_dir and not isinstance(summary.metrics, LanguageMetrics):
        model = shlex.quote(_relative(summary.model_dir))
        _say("predict", f"ivcp predict --model-dir {model} VIDEO.mp4")
        _say("serve", f"ivcp serve --model-dir {model}")


def _say(name: str, text: str) -> None:
    say(f"{name:<20}{text}")


def show_metrics(metrics: Measured) -> None:
    """Prints an evaluation's numbers."""
    show_table(_metrics_table(metrics))
    if isinstance(metrics, EvaluationMetrics):
        show_slices(metrics.slices)


def show_slices(slices: Sequence[Slice]) -> None:
    """Prints the accuracies of slices, but those of groups and what all clips have in common; nothing without any."""
    numbers = Counter(row.kind for row in slices)
    shown = [row for row in slices if numbers[row.kind] > 1 and row.kind != "group"]
    if not shown:
        return
    table = Table(title="top-1 accuracy by", title_justify="left")
    table.add_column("")
    table.add_column("")
    for heading in ("value", "95 % interval", "clips"):
        table.add_column(heading, justify="right")
    for row in shown:
        interval = f"{row.interval.low:.3f} – {row.interval.high:.3f}" if row.interval else ""
        table.add_row(row.words, escape(row.name), f"{row.top1_accuracy:.3f}", interval, str(row.num_clips))
    show_table(table)


def _steps_table(summary: RunSummary) -> Table:
    table = Table(title=f"run {summary.status} in {summary.seconds:.0f} s", title_justify="left")
    table.add_column("step")
    table.add_column("seconds", justify="right")
    table.add_column("result")
    for step in STEPS:
        if step in summary.steps:
            table.add_row(step, f"{summary.steps[step]:.1f}", escape(summary.results[step]))
        else:
            table.add_row(step, "–", "not run")
    return table


def _metrics_table(metrics: Measured) -> Table:
    table = Table(title=f"{metrics.split} split, {metrics.num_clips} clips{metrics.caveats}", title_justify="left")
    table.add_column("measure")
    table.add_column("value", justify="right")
    rows: list[_Row] = [(measure.words, measure.value, measure.interval) for measure in metrics.shown]
    if isinstance(metrics, EvaluationMetrics):
        rows += _more_rows(metrics)
    else:
        words = {"reversed": "frames reversed", "shuffled": "frames shuffled", "middle": "middle frame alone"}
        for kind, numbers in metrics.disturbed.items():
            rows += [
                (f"{words[kind]}: {name.replace('_', ' ')}", numbers.get(name), None) for name in metrics.names[:1]
            ]
    if any(interval for *_, interval in rows):
        table.add_column("95 % interval", justify="right")
    for name, value, interval in rows:
        if value is not None:
            between = [f"{interval.low:.3f} – {interval.high:.3f}"] if interval else []
            table.add_row(name, f"{value:.3f}", *between)
    return table


def _more_rows(metrics: EvaluationMetrics) -> list[_Row]:
    """What was measured of a classifier beside its accuracy."""
    rows: list[_Row] = [
        (f"beside it: {baseline.words}", baseline.top1_accuracy, baseline.interval)
        for baseline in metrics.baselines
        if baseline.kind != "majority"  # which stands above
    ]
    if metrics.prompts is not None:
        rows.append((f"mean of {len(metrics.prompts.top1_accuracy)} prompts", metrics.prompts.mean, None))
        rows.append(("their standard deviation", metrics.prompts.spread, None))
    for result in metrics.disturbed:
        if result.kind == "reversed":
            rows.append(("frames reversed: those become their partner", result.predicted_partner, None))
        elif result.kind == "shuffled":
            rows.append(("frames shuffled: right one of the pair (chance 0.5)", result.right_within_pair, None))
        elif result.kind == "middle" and not any(baseline.kind == "middle" for baseline in metrics.baselines):
            rows.append(("middle frame alone: top-1 accuracy", result.top1_accuracy, None))
    return rows


def _relative(path: str) -> str:
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative
