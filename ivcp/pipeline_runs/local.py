"""Runs the pipeline on this machine, without a cluster, through KFP's own local runner."""

from __future__ import annotations

import builtins
import contextlib
import copy
import io
import os
import re
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from ivcp.pipeline_runs.installed import load_pipeline
from ivcp.pipeline_runs.parameters import pipeline_arguments
from ivcp.records import METRICS_FILE, REPORT_HTML, PreparedIndex, Record, Split
from ivcp.records.evaluation import EvaluationMetrics
from ivcp.settings import RunConfig
from ivcp.tracking import finish_pipeline_run, start_pipeline_run, tracking_uri
from ivcp.tracking.steps import RECORDS_DIR_VARIABLE, StepRecord

STEPS = ("data_validation", "preprocessing", "training", "evaluation", "export", "serving")
FOLDERS = {"data_validation": "validation", "training": "adapter", "evaluation": "evaluation", "export": "model"}
"""Steps and the names that their outputs have in a run's folder."""
SUMMARY_FILE = "summary.json"
LOG_FILE = "pipeline.log"

_SHOWN = re.compile(r"^\s*\d\d:\d\d:\d\d (INFO|WARNING|ERROR|CRITICAL) ")
"""Lines of the steps' own logging (`ivcp.tracking.steps`); KFP's own lines go to the log file only."""


class PipelineFailedError(RuntimeError):
    """A step failed; the message names it and its cause, and `summary` holds what was reached."""

    def __init__(self, message: str, summary: RunSummary) -> None:
        super().__init__(message)
        self.summary = summary


class RunSummary(Record):
    """`summary.json`: the outcome of a local run."""

    status: str
    """`succeeded`, `refused` (by the gate), `unchanged` (nothing to train, see `skip_unchanged`) or `failed`."""
    seconds: float
    steps: dict[str, float]
    """Seconds of each step that ran."""
    results: dict[str, str]
    """The outcome of each step, in a few words."""
    error: str
    clips: dict[Split, int]
    """Prepared clips by split."""
    top1_accuracy: float | None
    mean_class_accuracy: float | None
    metrics: EvaluationMetrics | None
    validation_report: str | None
    evaluation_report: str | None
    adapter_dir: str | None
    model_dir: str | None
    mlflow_tracking_uri: str
    mlflow_run_id: str
    log: str


def run_locally(
    config: RunConfig, *, runs_dir: Path = Path("runs"), deploy: bool = True, containers: bool = False
) -> RunSummary:
    """Runs the whole pipeline into a new folder of `runs_dir`, and points `runs_dir`/latest at it.

    Steps run as processes of this environment, or in `containers`, each in its image.

    Raises:
        PipelineFailedError: a step failed.
    """
    run_dir = _new_run_dir(runs_dir, config.train.run_name)
    run_id = start_pipeline_run(config, default_store=runs_dir, run_name=run_dir.name)
    uri = tracking_uri(config, default_store=runs_dir)
    started, error = time.monotonic(), ""
    arguments = pipeline_arguments(_with_shards(config, runs_dir), deploy=deploy)
    variables = {
        RECORDS_DIR_VARIABLE: str(run_dir / "steps"),
        "MLFLOW_TRACKING_URI": uri,
        "MLFLOW_RUN_ID": run_id,
    }
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with (
        _environment(variables | {"PATH": path}),
        _tee(run_dir / LOG_FILE),
        _runner(config, runs_dir, variables if containers else None) as runner,
    ):
        try:
            _run_pipeline(arguments, runner=runner, pipeline_root=run_dir / "pipeline")
        except RuntimeError as raised:
            error = str(raised)
    summary = _summarize(run_dir, seconds=time.monotonic() - started, error=error, uri=uri, run_id=run_id)
    summary.write(run_dir / SUMMARY_FILE)
    finish_pipeline_run(run_id, "FAILED" if error else "FINISHED", config=config, default_store=runs_dir)
    if error:
        raise PipelineFailedError(summary.error, summary)
    return summary


@contextlib.contextmanager
def _runner(config: RunConfig, runs_dir: Path, container_variables: Mapping[str, str] | None) -> Iterator[Any]:
    """What runs the steps: processes, or containers with some environment variables."""
    from kfp import local

    if container_variables is None:
        yield local.SubprocessRunner(use_venv=False)
        return
    from ivcp.pipeline_runs.containers import container_runner, own_containers

    with own_containers(container_variables):
        yield container_runner(config, runs_dir=runs_dir)


def _run_pipeline(arguments: Mapping[str, Any], *, runner: Any, pipeline_root: Path) -> None:
    from kfp import local

    local.init(
        runner=runner,
        pipeline_root=str(pipeline_root),
        workspace_root=str(pipeline_root.parent / "workspace"),
        raise_on_error=True,
    )
    builtin_print = builtins.print
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "You may be attemping to run a task", RuntimeWarning)  # our images
            warnings.filterwarnings("ignore", "Task '.*': settings .* have no effect", UserWarning)  # placement
            _without_retries()(**arguments)
    finally:
        builtins.print = builtin_print  # kfp leaves it wrapped after some failures


def _without_retries() -> Any:
    """The pipeline without the retries that are for a cluster's accidents: on one machine a failure is an answer."""
    pipeline = copy.deepcopy(load_pipeline())
    spec = pipeline.pipeline_spec
    for dag in (spec.root.dag, *(component.dag for component in spec.components.values())):
        for task in dag.tasks.values():
            task.ClearField("retry_policy")
    return pipeline


def _with_shards(config: RunConfig, runs_dir: Path) -> RunConfig:
    if config.cluster.shards_uri:
        return config
    cluster = config.cluster.model_copy(update={"shards_uri": str(runs_dir.resolve() / "clips")})
    return config.model_copy(update={"cluster": cluster})


def _new_run_dir(runs_dir: Path, name: str | None) -> Path:
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    run_dir = runs_dir.resolve() / (f"{stamp}-{name}" if name else stamp)
    (run_dir / "steps").mkdir(parents=True)
    latest = runs_dir / "latest"
    latest.unlink(missing_ok=True)
    latest.symlink_to(run_dir.name)
    return run_dir


def _summarize(run_dir: Path, *, seconds: float, error: str, uri: str, run_id: str) -> RunSummary:
    records = {step: record for step in STEPS if (record := _read_record(run_dir / "steps", step)) is not None}
    started = _read_record(run_dir / "steps", "run_start")
    failed = [record for record in (started, *records.values()) if record is not None and record.status == "failed"]
    cause = f"{failed[0].step} failed: {failed[0].error}" if failed else error
    folders = {
        step: _link(run_dir / name, records[step].directory) for step, name in FOLDERS.items() if step in records
    }
    metrics = _metrics(folders.get("evaluation"))
    return RunSummary(
        status="failed" if error else _status(records),
        seconds=seconds,
        steps={step: round(record.seconds, 1) for step, record in records.items()},
        results={step: record.result or record.error for step, record in records.items()},
        error=cause,
        clips=_clips(run_dir),
        top1_accuracy=metrics.top1_accuracy if metrics else None,
        mean_class_accuracy=metrics.mean_class_accuracy if metrics else None,
        metrics=metrics,
        validation_report=_report(folders.get("data_validation")),
        evaluation_report=_report(folders.get("evaluation")),
        adapter_dir=_text(folders.get("training")),
        model_dir=_text(folders.get("export")),
        mlflow_tracking_uri=uri,
        mlflow_run_id=run_id,
        log=str(run_dir / LOG_FILE),
    )


def _status(records: Mapping[str, StepRecord]) -> str:
    """Of a run without an error, by the steps that ran."""
    if "training" not in records:
        return "unchanged"
    return "succeeded" if "export" in records else "refused"


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
    link.symlink_to(os.path.relpath(directory, link.parent))
    return link


def _metrics(results_dir: Path | None) -> EvaluationMetrics | None:
    path = results_dir / METRICS_FILE if results_dir else None
    return EvaluationMetrics.read(path) if path and path.is_file() else None


def _report(directory: Path | None) -> str | None:
    path = directory / REPORT_HTML if directory else None
    return str(path) if path and path.is_file() else None


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _clips(run_dir: Path) -> dict[Split, int]:
    indexes = list((run_dir / "pipeline").glob("*/preprocessing/prepared"))
    return PreparedIndex.read(indexes[0]).num_clips if indexes else {}


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@contextlib.contextmanager
def _tee(path: Path) -> Iterator[None]:
    """Writes all output to `path`, and shows on the terminal what the steps log."""
    with path.open("w", encoding="utf-8") as file, contextlib.redirect_stdout(_Tee(file, sys.stdout)):
        yield


class _Tee(io.TextIOBase):
    def __init__(self, file: TextIO, terminal: TextIO) -> None:
        self._file, self._terminal, self._line = file, terminal, ""

    def write(self, text: str) -> int:
        self._file.write(text)
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            if _SHOWN.match(line) and "Wrote executor output file" not in line:
                self._terminal.write(line.strip() + "\n")
        return len(text)

    def flush(self) -> None:
        self._file.flush()
        self._terminal.flush()
