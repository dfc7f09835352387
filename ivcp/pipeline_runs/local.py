"""Runs the pipeline on this machine, without a cluster, through KFP's own local runner.

The same command again goes on with a run that did not come to its end: steps that are done are found in KFP's cache,
which lies in the run's folder; training finds its checkpoint, validation and preparation what they wrote.
"""

from __future__ import annotations

import builtins
import contextlib
import json
import os
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ivcp.pipeline_runs.installed import load_pipeline
from ivcp.pipeline_runs.interruption import Interruption, end_leftovers, own_processes
from ivcp.pipeline_runs.output import tee
from ivcp.pipeline_runs.parameters import pipeline_arguments, prepares_in_parts
from ivcp.pipeline_runs.run_folder import KFP_CACHE, RunFolder, open_run_folder, run_fingerprint, take_validation
from ivcp.pipeline_runs.summary import LOG_FILE, RECORDS_DIR, SUMMARY_FILE, RunSummary, summarize
from ivcp.settings import RunConfig
from ivcp.tracking import (
    RunStatus,
    continue_pipeline_run,
    finish_pipeline_run,
    start_pipeline_run,
    tracking_uri,
    unless_away,
)
from ivcp.tracking.steps import RECORDS_DIR_VARIABLE

_CACHED = ("data-validation", "training", "evaluation", "export", "serving")
"""Steps that are not run again once they are done. The others are short, and look for what is there themselves."""


_EVALUATION, _CONDITION = "comp-evaluation", "comp-condition"
"""Names of components in a compiled pipeline: beside the evaluation stands one condition, the gate."""
_WITHOUT_FILE = ("system.Metrics", "system.ClassificationMetrics")


class PipelineFailedError(RuntimeError):
    """A step failed; the message names it and its cause, and `summary` holds what was reached."""

    def __init__(self, message: str, summary: RunSummary) -> None:
        super().__init__(message)
        self.summary = summary


def run_locally(
    config: RunConfig,
    *,
    runs_dir: Path = Path("runs"),
    deploy: bool = True,
    containers: bool = False,
    fresh: bool = False,
    tags: Mapping[str, str] | None = None,
    measures_only: bool = False,
    validated_by: Path | None = None,
) -> RunSummary:
    """Runs the whole pipeline into a folder of `runs_dir`, and points `runs_dir`/latest at it.

    The newest run with the same settings and data goes on where it did not come to its end, unless it is to start
    `fresh`. Steps run as processes of this environment, or in `containers`, each in its image. Ctrl-C and SIGTERM end
    them; the summary says `interrupted` then. `tags` are its MLflow run's. One that `measures_only` ends behind the
    evaluation; the same call without that goes on to the export. `validated_by` is the folder of a run on the same
    data, whose validation counts here too.

    Raises:
        PipelineFailedError: a step failed.
        InUseError: another process is at the same run.
    """
    uri = tracking_uri(config, default_store=runs_dir)
    arguments = pipeline_arguments(_with_shards(config, runs_dir), deploy=deploy)
    fingerprint = run_fingerprint(config, arguments, uri=uri, containers=containers)
    interruption = Interruption()
    with (
        interruption.listening(),
        open_run_folder(runs_dir, fingerprint=fingerprint, uri=uri, name=config.train.run_name, fresh=fresh) as folder,
    ):
        if validated_by is not None:
            take_validation(validated_by, folder.path)
        tracked = _tracked(config, folder, runs_dir, tags)
        run_id, started = tracked.run.mlflow_run_id or "", time.monotonic()
        error = _run_steps(
            config,
            arguments,
            tracked,
            interruption,
            runs_dir=runs_dir,
            containers=containers,
            measures_only=measures_only,
        )
        is_interrupted = interruption.requested and bool(error)
        if is_interrupted:  # what a step started in a session of its own: a predictor
            end_leftovers(RECORDS_DIR_VARIABLE, str(folder.path / RECORDS_DIR))
        summary = summarize(
            folder.path,
            seconds=time.monotonic() - started,
            error=error,
            uri=uri,
            run_id=run_id,
            interrupted=is_interrupted,
        )
        status: RunStatus = "KILLED" if is_interrupted else "FAILED" if error else "FINISHED"
        if run_id:
            unless_away(
                lambda: finish_pipeline_run(run_id, status, config=config, default_store=runs_dir),
                otherwise=None,
                doing="ending the run in MLflow",
            )
        summary.write(folder.path / SUMMARY_FILE)
    if summary.status == "failed":
        raise PipelineFailedError(summary.error, summary)
    return summary


def _tracked(config: RunConfig, folder: RunFolder, runs_dir: Path, tags: Mapping[str, str] | None = None) -> RunFolder:
    """The folder with its MLflow run: the one that it had, or a new one; none where MLflow is away."""
    earlier = folder.run.mlflow_run_id
    if earlier is not None and unless_away(
        lambda: continue_pipeline_run(earlier, config=config, default_store=runs_dir),
        otherwise=True,
        doing="going on with the run in MLflow",
    ):
        return folder
    run_id = unless_away(
        lambda: start_pipeline_run(config, default_store=runs_dir, run_name=folder.path.name, tags=tags),
        otherwise=None,
        doing="starting the run in MLflow",
    )
    return folder.tracked(run_id) if run_id else folder


def _run_steps(
    config: RunConfig,
    arguments: Mapping[str, Any],
    folder: RunFolder,
    interruption: Interruption,
    *,
    runs_dir: Path,
    containers: bool,
    measures_only: bool,
) -> str:
    """Runs the pipeline in a run's folder; what went wrong, empty where nothing did."""
    variables = {
        RECORDS_DIR_VARIABLE: str(folder.path / RECORDS_DIR),
        "MLFLOW_TRACKING_URI": folder.run.mlflow_tracking_uri,
        "MLFLOW_RUN_ID": folder.run.mlflow_run_id or "",
    }
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    if folder.has_trained:  # there was something to train, and what it became may be the champion by now
        arguments = {**arguments, "overrides": {"skip_unchanged": False}}
    with (
        _environment(variables | {"PATH": path}),
        tee(folder.path / LOG_FILE),
        _runner(config, runs_dir, variables if containers else None, interruption) as runner,
    ):
        try:
            _run_pipeline(
                arguments,
                runner=runner,
                pipeline_root=folder.path / "pipeline",
                pipeline_run=folder.run.pipeline_run,
                in_parts=prepares_in_parts(config),
                measures_only=measures_only,
            )
        except RuntimeError as raised:
            return str(raised)
    return ""


@contextlib.contextmanager
def _runner(
    config: RunConfig, runs_dir: Path, container_variables: Mapping[str, str] | None, interruption: Interruption
) -> Iterator[Any]:
    """What runs the steps: processes, or containers with some environment variables."""
    from kfp import local

    if container_variables is None:
        with own_processes(interruption):
            yield local.SubprocessRunner(use_venv=False)
        return
    from ivcp.pipeline_runs.containers import container_runner, own_containers

    with own_containers(container_variables, interruption):
        yield container_runner(config, runs_dir=runs_dir)


def _run_pipeline(
    arguments: Mapping[str, Any],
    *,
    runner: Any,
    pipeline_root: Path,
    pipeline_run: str,
    in_parts: bool,
    measures_only: bool,
) -> None:
    from kfp import local

    local.init(
        runner=runner,
        pipeline_root=str(pipeline_root),
        workspace_root=str(pipeline_root.parent / "workspace"),
        raise_on_error=True,
        enable_caching=True,
        cache_root=str(pipeline_root / KFP_CACHE),
    )
    _give_metrics_a_file(pipeline_root)
    builtin_print = builtins.print
    try:
        with warnings.catch_warnings(), _same_folders():
            warnings.filterwarnings("ignore", "You may be attemping to run a task", RuntimeWarning)  # our images
            warnings.filterwarnings("ignore", "Task '.*': settings .* have no effect", UserWarning)  # placement
            _for_one_machine(pipeline_run, in_parts=in_parts, measures_only=measures_only)(**arguments)
    finally:
        builtins.print = builtin_print  # kfp leaves it wrapped after some failures


def _for_one_machine(pipeline_run: str, *, in_parts: bool, measures_only: bool = False) -> Any:
    """The pipeline as one machine runs it, again and again until it is done.

    Without the retries that are for a cluster's accidents: here a failure is an answer. Its id stays the same, and
    finished steps are kept. What comes behind the gate is left out where the run `measures_only`.
    """
    from kfp import dsl

    pipeline = load_pipeline(in_parts=in_parts)
    spec = pipeline.pipeline_spec
    for dag in (spec.root.dag, *(component.dag for component in spec.components.values())):
        if measures_only and _EVALUATION in (task.component_ref.name for task in dag.tasks.values()):
            for name in [name for name, task in dag.tasks.items() if task.component_ref.name.startswith(_CONDITION)]:
                del dag.tasks[name]
        for task in dag.tasks.values():
            task.ClearField("retry_policy")
            task.caching_options.enable_cache = task.component_ref.name.removeprefix("comp-") in _CACHED
            for given in task.inputs.parameters.values():
                constant = given.runtime_value.constant
                if constant.string_value == dsl.PIPELINE_JOB_ID_PLACEHOLDER:
                    constant.string_value = pipeline_run
    return pipeline


def _give_metrics_a_file(pipeline_root: Path) -> None:
    """KFP's cache takes a step's result for lost where an artifact has no file, and metrics have none."""
    for entry in (pipeline_root / KFP_CACHE).glob("*.json"):
        for output in json.loads(entry.read_text(encoding="utf-8")).values():
            if isinstance(output, dict) and output.get("schema_title") in _WITHOUT_FILE:
                Path(output["uri"]).touch()


@contextlib.contextmanager
def _same_folders() -> Iterator[None]:
    """Lets KFP name the folders of steps without the time, so that a run that goes on finds them."""
    from kfp.local import executor_input_utils

    theirs = executor_input_utils.get_local_pipeline_resource_name
    executor_input_utils.get_local_pipeline_resource_name = str
    try:
        yield
    finally:
        executor_input_utils.get_local_pipeline_resource_name = theirs


def _with_shards(config: RunConfig, runs_dir: Path) -> RunConfig:
    if config.cluster.shards_uri:
        return config
    cluster = config.cluster.model_copy(update={"shards_uri": str(runs_dir.resolve() / "clips")})
    return config.model_copy(update={"cluster": cluster})


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
