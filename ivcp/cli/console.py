"""What the command line shows of a run."""

from __future__ import annotations

import os

from rich.console import Console
from rich.table import Table

from ivcp.pipeline_runs.summary import STEPS, RunSummary
from ivcp.records.evaluation import EvaluationMetrics


def show_summary(summary: RunSummary, console: Console) -> None:
    """Prints a run's table, its accuracies, its paths, and the commands that open them."""
    console.print(_steps_table(summary))
    if summary.metrics is not None:
        console.print(_metrics_table(summary.metrics))
    for name, path in (
        ("validation report", summary.validation_report),
        ("evaluation report", summary.evaluation_report),
        ("adapter", summary.adapter_dir),
        ("model", summary.model_dir),
        ("log", summary.log),
    ):
        if path:
            console.print(f"{name:<20}{_relative(path)}", soft_wrap=True, highlight=False)
    console.print()
    if summary.evaluation_report or summary.validation_report:
        report = _relative(summary.evaluation_report or summary.validation_report or "")
        console.print(f"{'open the report':<20}python3 -m webbrowser {report}", soft_wrap=True, highlight=False)
    console.print(f"{'MLflow':<20}mlflow ui --backend-store-uri {_store(summary)}", soft_wrap=True, highlight=False)
    if summary.model_dir:
        model = _relative(summary.model_dir)
        console.print(f"{'predict':<20}ivcp predict --model-dir {model} VIDEO.mp4", soft_wrap=True, highlight=False)
        console.print(f"{'serve':<20}ivcp serve --model-dir {model}", soft_wrap=True, highlight=False)


def show_metrics(metrics: EvaluationMetrics, console: Console) -> None:
    """Prints an evaluation's accuracies."""
    console.print(_metrics_table(metrics))


def _steps_table(summary: RunSummary) -> Table:
    table = Table(title=f"run {summary.status} in {summary.seconds:.0f} s", title_justify="left")
    table.add_column("step")
    table.add_column("seconds", justify="right")
    table.add_column("result")
    for step in STEPS:
        if step in summary.steps:
            table.add_row(step, f"{summary.steps[step]:.1f}", summary.results[step])
        else:
            table.add_row(step, "–", "not run")
    return table


def _metrics_table(metrics: EvaluationMetrics) -> Table:
    table = Table(title=f"{metrics.split} split, {metrics.num_clips} clips", title_justify="left")
    table.add_column("measure")
    table.add_column("value", justify="right")
    rows = [(measure.words, measure.value) for measure in metrics.shown]
    for result in metrics.disturbed:
        if result.kind == "reversed":
            rows.append(("frames reversed: those become their partner", result.predicted_partner))
        elif result.kind == "shuffled":
            rows.append(("frames shuffled: right one of the pair (chance 0.5)", result.right_within_pair))
        elif result.kind == "middle":
            rows.append(("middle frame alone: top-1 accuracy", result.top1_accuracy))
    for name, value in rows:
        if value is not None:
            table.add_row(name, f"{value:.3f}")
    return table


def _relative(path: str) -> str:
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


def _store(summary: RunSummary) -> str:
    prefix = "sqlite:///"
    uri = summary.mlflow_tracking_uri
    return prefix + _relative(uri.removeprefix(prefix)) if uri.startswith(prefix) else uri
