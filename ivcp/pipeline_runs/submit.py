"""Uploads the pipeline to a Kubeflow Pipelines server, starts runs of it, and follows them."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import kfp_server_api
from kfp_server_api.exceptions import ApiException

from ivcp.pipeline_runs.connection import (
    Server,
    ServerError,
    ServerUnreachableError,
    explained,
    listed,
    name_filter,
    server_message,
)
from ivcp.pipeline_runs.installed import ACTION_CLS, load_pipeline

log = logging.getLogger(__name__)

DEFAULT_EXPERIMENT = "ivcp"
ENDED = ("SUCCEEDED", "FAILED", "SKIPPED", "CANCELED")
_POLL_SECONDS, _PATIENCE_SECONDS = 5.0, 600.0
_VERSION_DIGITS = 12


@dataclass(frozen=True)
class PipelineVersion:
    """A version of the pipeline on a server."""

    pipeline_id: str
    version_id: str
    name: str
    is_new: bool
    """It was uploaded now; else the server had this content already."""

    @property
    def reference(self) -> kfp_server_api.V2beta1PipelineVersionReference:
        """How a run names it."""
        return kfp_server_api.V2beta1PipelineVersionReference(
            pipeline_id=self.pipeline_id, pipeline_version_id=self.version_id
        )


@dataclass(frozen=True)
class EndedRun:
    """What became of a run."""

    state: str
    message: str
    """Why it failed, with the steps that did; empty for one that succeeded."""

    @property
    def succeeded(self) -> bool:
        """Whether all steps ended well."""
        return self.state == "SUCCEEDED"


def is_compiled(path: Path) -> bool:
    """Whether a file is what `compile_pipeline` or `compile_manifest` writes."""
    with path.open("rb") as file:
        head = file.read(4096)
    return any(mark in head for mark in (b"# PIPELINE DEFINITION", b"pipelines.kubeflow.org", b"schemaVersion:"))


def compile_pipeline(path: Path) -> str:
    """Writes the compiled pipeline to `path`; returns the name of its version: a hash of the content."""
    from kfp import compiler

    compiler.Compiler().compile(load_pipeline(), str(path))
    lines = [line for line in path.read_bytes().splitlines() if not line.startswith(b"#")]
    return hashlib.sha256(b"\n".join(lines)).hexdigest()[:_VERSION_DIGITS]


def compile_manifest(path: Path, *, namespace: str | None = None) -> str:
    """Writes a `Pipeline` and a `PipelineVersion` for kubectl to `path`; returns the version's name.

    The version's name holds the hash of its content, which Kubernetes does not let change.
    """
    from kfp import compiler
    from kfp.compiler.compiler_utils import KubernetesManifestOptions

    with TemporaryDirectory() as folder:
        digest = compile_pipeline(Path(folder) / "pipeline.yaml")
    options = KubernetesManifestOptions(
        pipeline_name=ACTION_CLS,
        pipeline_version_name=f"{ACTION_CLS}-{digest}",
        namespace=namespace,
        include_pipeline_manifest=True,
    )
    compiler.Compiler().compile(
        load_pipeline(), str(path), kubernetes_manifest_options=options, kubernetes_manifest_format=True
    )
    return digest


def upload_pipeline(server: Server) -> PipelineVersion:
    """Makes the pipeline, as it is compiled here, a version on the server, unless it has this content already.

    Raises:
        ServerError: the server refuses it, or does not answer.
    """
    with TemporaryDirectory() as folder, explained(server.url):
        package = Path(folder) / f"{ACTION_CLS}.yaml"
        digest = compile_pipeline(package)
        name = f"{ACTION_CLS}-{digest}"
        pipeline_id = _find_pipeline(server, ACTION_CLS)
        if pipeline_id is None:
            pipeline_id = _create_pipeline(server, ACTION_CLS)
        found = _find_version(server, pipeline_id, name)
        if found is None:
            found = _upload_version(server, package, pipeline_id, name)
            return PipelineVersion(pipeline_id, found, name, is_new=True)
    return PipelineVersion(pipeline_id, found, name, is_new=False)


def start_run(
    server: Server,
    version: PipelineVersion,
    arguments: Mapping[str, Any],
    *,
    name: str,
    experiment: str = DEFAULT_EXPERIMENT,
    service_account: str | None = None,
) -> str:
    """Starts a run in an experiment, which is made where it is missing; returns the run's id.

    Raises:
        ServerError: the server refuses a parameter or the run, or does not answer.
    """
    with explained(server.url):
        run = server.runs.run_service_create_run(
            run=kfp_server_api.V2beta1Run(
                display_name=name,
                experiment_id=experiment_id(server, experiment),
                pipeline_version_reference=version.reference,
                runtime_config=kfp_server_api.V2beta1RuntimeConfig(parameters=dict(arguments)),
                service_account=service_account,
            )
        )
    run_id: str = run.run_id
    return run_id


def run_name(base: str | None) -> str:
    """A display name that says when: KFP lists runs by it."""
    return f"{base or 'action-cls'} {datetime.now():%Y-%m-%d %H:%M:%S}"


def follow_run(
    server: Server,
    run_id: str,
    say: Callable[[str], None],
    *,
    poll_seconds: float = _POLL_SECONDS,
    patience_seconds: float = _PATIENCE_SECONDS,
) -> EndedRun:
    """Waits until a run has ended and says which step changes its state; a server that restarts is waited for.

    Raises:
        ServerError: the run does not exist, the server refuses to say, or it is gone for `patience_seconds`.
    """
    shown: dict[str, str] = {}
    last_answer = time.monotonic()
    while True:
        try:
            with explained(server.url):
                run = server.runs.run_service_get_run(run_id)
        except ServerUnreachableError as error:
            if time.monotonic() - last_answer > patience_seconds:
                raise
            log.warning("%s; the run continues, asking again", error)
            time.sleep(poll_seconds)
            continue
        last_answer = time.monotonic()
        for task in _tasks(run):
            if shown.get(task.task_id) != task.state and task.state:
                shown[task.task_id] = task.state
                say(f"{task.display_name}: {task.state.lower()}")
        if run.state in ENDED:
            return EndedRun(state=run.state, message="" if run.state == "SUCCEEDED" else _why(run))
        time.sleep(poll_seconds)


def experiment_id(server: Server, name: str) -> str:
    """The id of an experiment, which is made where it is missing."""
    options = {"namespace": server.namespace} if server.namespace else {}
    found = listed(
        server.experiments.experiment_service_list_experiments, "experiments", filter=name_filter(name), **options
    )
    for experiment in found:
        return str(experiment.experiment_id)
    made = server.experiments.experiment_service_create_experiment(
        experiment=kfp_server_api.V2beta1Experiment(display_name=name, namespace=server.namespace)
    )
    return str(made.experiment_id)


def _find_pipeline(server: Server, name: str) -> str | None:
    options = {"namespace": server.namespace} if server.namespace else {}
    found = listed(server.pipelines.pipeline_service_list_pipelines, "pipelines", filter=name_filter(name), **options)
    return next((pipeline.pipeline_id for pipeline in found), None)


def _create_pipeline(server: Server, name: str) -> str:
    body = kfp_server_api.V2beta1Pipeline(display_name=name, name=name, namespace=server.namespace)
    try:
        made = server.pipelines.pipeline_service_create_pipeline(pipeline=body)
    except ApiException as error:
        if error.status != 409:
            raise
        found = _find_pipeline(server, name)  # somebody else was faster
        if found is None:
            raise ServerError(
                f"{server.url} has a pipeline {name} that this namespace does not see: {server_message(error)}"
            ) from error
        return found
    return str(made.pipeline_id)


def _find_version(server: Server, pipeline_id: str, name: str) -> str | None:
    found = listed(
        lambda **page: server.pipelines.pipeline_service_list_pipeline_versions(pipeline_id, **page),
        "pipeline_versions",
        filter=name_filter(name),
    )
    return next((version.pipeline_version_id for version in found), None)


def _upload_version(server: Server, package: Path, pipeline_id: str, name: str) -> str:
    try:
        made = server.uploads.upload_pipeline_version(str(package), name=name, pipelineid=pipeline_id)
    except ApiException as error:
        found = _find_version(server, pipeline_id, name) if error.status == 409 else None
        if found is None:
            raise
        return found
    return str(made.pipeline_version_id)


def _tasks(run: kfp_server_api.V2beta1Run) -> list[kfp_server_api.V2beta1PipelineTaskDetail]:
    """The steps of a run in the order of their start, without KFP's own drivers and groups of steps."""
    details = (run.run_details.task_details if run.run_details else None) or []
    steps = [task for task in details if task.display_name and not _is_machinery(task.display_name)]
    return sorted(steps, key=lambda task: str(task.start_time or task.create_time or "~"))


def _is_machinery(name: str) -> bool:
    return name.endswith(("-driver", "-executor")) or name in ("root", "executor", "driver")


def _why(run: kfp_server_api.V2beta1Run) -> str:
    failed = [
        f"{task.display_name}: {task.error.message if task.error and task.error.message else 'see its log'}"
        for task in _tasks(run)
        if task.state == "FAILED"
    ]
    said = [run.error.message] if run.error and run.error.message else []
    return "; ".join(failed or said or [f"the server says {run.state.lower()} and no more"])
