"""The `evaluation` step: from an adapter directory to metrics, a report and the gate's verdict."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from ivcp.evaluation.evaluate import evaluate_adapter
from ivcp.records import REPORT_HTML, PreparedIndex
from ivcp.records.evaluation import EvaluationMetrics
from ivcp.settings import read_saved_config
from ivcp.tracking import note_end
from ivcp.tracking.steps import recorded_step


@dataclass(frozen=True)
class EvaluationOutcome:
    """What KFP shows of an evaluation."""

    passed: bool
    headline: dict[str, float]
    confusion_matrices: list[tuple[list[str], list[list[int]]]]
    """Names of the classes, and clips by true and predicted class: of a classifier one, else none."""


def run_step(*, run_config: str, prepared: str, adapter: str, results: str, report: str) -> EvaluationOutcome:
    """Measures `adapter` on the test split of `prepared`; writes `results`, a folder, and `report`, a page."""
    with recorded_step("evaluation") as outcome:
        config = read_saved_config(Path(run_config))
        metrics = evaluate_adapter(
            config,
            adapter_dir=Path(adapter),
            index=PreparedIndex.read(Path(prepared)),
            output_dir=Path(results),
        )
        shutil.copyfile(Path(results) / REPORT_HTML, report)
        verdict = "passed" if metrics.gate.passed else "refused: " + "; ".join(metrics.gate.reasons)
        if not metrics.gate.passed:
            note_end(config, f"the gate {verdict}")
        outcome.result = f"{metrics.summary}, gate {verdict}"
        outcome.directory = results
    return EvaluationOutcome(
        passed=metrics.gate.passed,
        headline=metrics.headline(),
        confusion_matrices=[_confusion(metrics)] if isinstance(metrics, EvaluationMetrics) else [],
    )


def _confusion(metrics: EvaluationMetrics) -> tuple[list[str], list[list[int]]]:
    return [row.label_name for row in metrics.classes], [list(row) for row in metrics.confusion_matrix]
