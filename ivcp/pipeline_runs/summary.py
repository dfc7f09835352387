"""`summary.json`: what a local run came to, from the records that its steps left."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ivcp.records import METRICS_FILE, REPORT_HTML, PreparedIndex, Record, Split
from ivcp.records.evaluation import EvaluationMetrics
from ivcp.records.language_evaluation import Measured, read_metrics
from ivcp.tracking import find_run_page
from ivcp.tracking.steps import StepRecord

STEPS = ("data_validation", "preprocessing", "training", "evaluation", "export", "serving")
FOLDERS = {"data_validation": "validation", "training": "adapter", "evaluation": "evaluation", "export": "model"}
"""Steps and the names that their outputs have in a run's folder."""
SUMMARY_FILE = "summary.json"
LOG_FILE = "pipeline.log"
RECORDS_DIR = "steps"
INTERRUPTED = "interrupted"
MEASURED = "measured"
"""It measures only, and the gate would let it pass: export is what is left to do."""
FINISHED = frozenset({"succeeded", "refused", "unchanged"})
"""What a run comes to that has nothing left to do."""


class RunSummary(Record):
    """`summary.json`: the outcome of a local run."""

    status: str
    """`succeeded`, `refused` (by the gate), `measured` (that was all that was asked for), `unchanged` (nothing to
    train, see `skip_unchanged`), `failed` or `interrupted`."""
    seconds: float
    """Since the command was given; steps that an earlier one did are not in it."""
    steps: dict[str, float]
    """Seconds of each step that ran."""
    results: dict[str, str]
    """The outcome of each step, in a few words."""
    error: str
    clips: dict[Split, int]
    """Prepared clips by split."""
    top1_accuracy: float | None
    """Of a classifier, as is `mean_class_accuracy`."""
    mean_class_accuracy: float | None
    metrics: Measured | None
    validation_report: str | None
    evaluation_report: str | None
    adapter_dir: str | None
    model_dir: str | None
    mlflow_tracking_uri: str
    mlflow_run_id: str
    mlflow_page: str = ""
    """The run's page in MLflow; of a store that is a file, where `mlflow ui` shows it."""
    log: str


def summarize(
    run_dir: Path, *, seconds: float, error: str, uri: str, run_id: str, interrupted: bool = False
) -> RunSummary:
    """What the run in `run_dir` came to; links its outputs there. `error` is empty where all steps ended well."""
    records = read_records(run_dir)
    failed = [record for record in records.values() if record.status == "failed"]
    cause = f"{failed[0].step} failed: {failed[0].error}" if failed else error
    folders = {
        step: _link(run_dir / name, records[step].directory) for step, name in FOLDERS.items() if step in records
    }
    metrics = _metrics(folders.get("evaluation"))
    return RunSummary(
        status=INTERRUPTED if interrupted else "failed" if error else _status(records, metrics),
        seconds=seconds,
        steps={step: round(records[step].seconds, 1) for step in STEPS if step in records},
        results={step: records[step].result or records[step].error for step in STEPS if step in records},
        error="" if interrupted else cause,
        clips=_clips(run_dir),
        top1_accuracy=metrics.top1_accuracy if isinstance(metrics, EvaluationMetrics) else None,
        mean_class_accuracy=metrics.mean_class_accuracy if isinstance(metrics, EvaluationMetrics) else None,
        metrics=metrics,
        validation_report=_report(folders.get("data_validation")),
        evaluation_report=_report(folders.get("evaluation")),
        adapter_dir=_text(folders.get("training")),
        model_dir=_text(folders.get("export")),
        mlflow_tracking_uri=uri,
        mlflow_run_id=run_id,
        mlflow_page=find_run_page(uri, run_id) if run_id else "",
        log=str(run_dir / LOG_FILE),
    )


def read_records(run_dir: Path) -> dict[str, StepRecord]:
    """What the steps of a run said of themselves, in their order."""
    found = {step: _read_record(run_dir / RECORDS_DIR, step) for step in ("run_start", *STEPS)}
    return {step: record for step, record in found.items() if record is not None}


def _status(records: Mapping[str, StepRecord], metrics: Measured | None = None) -> str:
    """Of a run without an error, by the steps that ran."""
    if "training" not in records:
        return "unchanged"
    if "export" in records:
        return "succeeded"
    return MEASURED if metrics is not None and metrics.gate.passed else "refused"


def _read_record(folder: Path, step: str) -> StepRecord | None:
    """A step's record; of one that was divided, the last task's with the time from first to last and any failure."""
    files = [*folder.glob(f"{step}.json"), *sorted(folder.glob(f"{step}-*.json"))]
    if not files:
        return None
    records = [StepRecord.read(file) for file in files]
    ends = [file.stat().st_mtime for file in files]
    begin = min(end - record.seconds for end, record in zip(ends, records, strict=True))
    shown = next((record for record in records if record.status == "failed"), records[0])
    return shown.model_copy(update={"step": step, "seconds": max(ends) - begin})


def _link(link: Path, directory: str) -> Path | None:
    """A short path to a step's output in the run's folder; null where the step wrote none."""
    if not directory or not Path(directory).is_dir():
        return None
    link.unlink(missing_ok=True)  # of the command that was interrupted
    link.symlink_to(os.path.relpath(directory, link.parent))
    return link


def _metrics(results_dir: Path | None) -> Measured | None:
    path = results_dir / METRICS_FILE if results_dir else None
    return read_metrics(path) if path and path.is_file() else None


def _report(directory: Path | None) -> str | None:
    path = directory / REPORT_HTML if directory else None
    return str(path) if path and path.is_file() else None


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _clips(run_dir: Path) -> dict[Split, int]:
    indexes = list((run_dir / "pipeline").glob("*/preprocessing/prepared"))
    return PreparedIndex.read(indexes[0]).num_clips if indexes else {}
