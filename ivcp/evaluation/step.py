"""The `evaluation` step: from an adapter directory to metrics, a report and the gate's verdict."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from ivcp.evaluation.evaluate import evaluate_adapter
from ivcp.records import REPORT_HTML, PreparedIndex
from ivcp.records.evaluation import EvaluationMetrics
from ivcp.records.language_evaluation import Measured
from ivcp.records.target_evaluation import TargetMetrics
from ivcp.settings import read_saved_config
from ivcp.tracking import note_end
from ivcp.tracking.steps import recorded_step


@dataclass(frozen=True)
class EvaluationOutcome:
    """What KFP shows of an evaluation."""

    passed: bool
    headline: dict[str, float]
    confusion_matrices: list[tuple[list[str], list[list[int]]]]
    """Names of the classes, and clips by true and predicted class: of a classifier or of heads one, else none."""


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
        confusion_matrices=_confusions(metrics),
    )


def _confusions(metrics: Measured) -> list[tuple[list[str], list[list[int]]]]:
    match metrics:
        case EvaluationMetrics():
            return [([row.label_name for row in metrics.classes], [list(row) for row in metrics.confusion_matrix])]
        case TargetMetrics() if metrics.heads:
            return [_of_all_heads(metrics)]
        case _:
            return []


def _of_all_heads(metrics: TargetMetrics) -> tuple[list[str], list[list[int]]]:
    """One matrix, for an artifact holds one: the heads' stand along its diagonal."""
    names = [row.label_name for row in metrics.classes]
    counts = [[0] * len(names) for _ in names]
    start = 0
    for matrix in metrics.confusion_matrices.values():
        for number, row in enumerate(matrix):
            counts[start + number][start : start + len(row)] = row
        start += len(matrix)
    return names, counts
