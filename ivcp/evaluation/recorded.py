"""What the log and MLflow say of an evaluation."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from ivcp.records.language_evaluation import Measured
from ivcp.records.markdown import escape
from ivcp.tracking import TrackedRun
from ivcp.tracking.described import markdown_table

log = logging.getLogger(__name__)

EVALUATION_FOLDER = "evaluation"
"""Of a run's artifacts."""


def record_evaluation(run: TrackedRun, metrics: Measured, files: Iterable[Path]) -> None:
    """Logs the numbers and the verdict, and keeps them with `files` in the step's run."""
    verdict = "passed" if metrics.gate.passed else "refused"
    run.log_metrics({f"{metrics.split}/{name}": value for name, value in metrics.headline().items()})
    run.set_tags(metrics.fingerprints() | {"gate": verdict})
    for path in files:
        run.log_artifact(path, folder=EVALUATION_FOLDER)
    figures = markdown_table(
        ("figure", "value"), [(name, f"{value:.4g}") for name, value in metrics.headline().items()]
    )
    reasons = "\n".join(f"- {escape(reason)}" for reason in metrics.gate.reasons)
    run.describe("Evaluation", f"{escape(metrics.summary)}\n\nGate {verdict}:\n\n{reasons}\n\n{figures}")
    level = logging.WARNING if metrics.left_out.total or not metrics.knows_what_it_saw else logging.INFO
    log.log(level, "measured on %s", metrics.measured_on)
    log.info("%s; gate: %s", metrics.summary, "; ".join(metrics.gate.reasons))
