"""Uploads the pipeline to a Kubeflow Pipelines server, and starts runs of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
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
    explained,
    listed,
    name_filter,
    server_message,
)
from ivcp.pipeline_runs.installed import load_pipeline
from ivcp.pipeline_runs.limits import NO_LIMITS, RunLimits
from ivcp.pipeline_runs.releases import OLDEST, fit
from ivcp.settings.curriculum import pipeline_name
from ivcp.settings.form import description

DEFAULT_EXPERIMENT = "ivcp"
_VERSION_DIGITS = 12


@dataclass(frozen=True)
class PipelineVersion:
    """A version of the pipeline on a server."""

    pipeline_id: str
    version_id: str
    name: str
    pipeline_name: str
    is_new: bool
    """It was uploaded now; else the server had this content already."""

    @property
    def reference(self) -> kfp_server_api.V2beta1PipelineVersionReference:
        """How a run names it."""
        return kfp_server_api.V2beta1PipelineVersionReference(
            pipeline_id=self.pipeline_id, pipeline_version_id=self.version_id
        )


def is_compiled(path: Path) -> bool:
    """Whether a file is what `compile_pipeline` or `compile_manifest` writes."""
    with path.open("rb") as file:
        head = file.read(4096)
    return any(mark in head for mark in (b"# PIPELINE DEFINITION", b"pipelines.kubeflow.org", b"schemaVersion:"))


@dataclass(frozen=True)
class Variant:
    """Which of the pipelines is compiled."""

    stages: int = 1
    """How many it trains: several are those of a curriculum."""
    in_parts: bool = False
    """Clips are prepared in several pods side by side."""
    release: tuple[int, int] = OLDEST
    """The oldest release of Kubeflow Pipelines that takes it."""

    limits: RunLimits = NO_LIMITS
    """Of every run, for servers that know them."""

    def load(self) -> Any:
        """kfp's pipeline."""
        pipeline = load_pipeline(stages=self.stages, in_parts=self.in_parts)
        return fit(self.limits.apply(pipeline), self.release)

    @property
    def name(self) -> str:
        """Of the pipeline."""
        return pipeline_name(self.stages)


def compile_pipeline(path: Path, variant: Variant = Variant()) -> str:
    """Writes the compiled pipeline to `path`; returns the name of its version: a hash of the content."""
    from kfp import compiler

    compiler.Compiler().compile(variant.load(), str(path))
    lines = [line for line in path.read_bytes().splitlines() if not line.startswith(b"#")]
    return hashlib.sha256(b"\n".join(lines)).hexdigest()[:_VERSION_DIGITS]


def compile_manifest(path: Path, variant: Variant = Variant(), *, namespace: str | None = None) -> str:
    """Writes a `Pipeline` and a `PipelineVersion` for kubectl to `path`; returns the version's name.

    The version's name holds the hash of its content, which Kubernetes does not let change.
    """
    import yaml
    from kfp import compiler
    from kfp.compiler.compiler_utils import KubernetesManifestOptions

    with TemporaryDirectory() as folder:
        digest = compile_pipeline(Path(folder) / "pipeline.yaml", variant)
    options = KubernetesManifestOptions(
        pipeline_name=variant.name,
        pipeline_version_name=f"{variant.name}-{digest}",
        namespace=namespace,
        include_pipeline_manifest=True,
    )
    compiler.Compiler().compile(
        variant.load(), str(path), kubernetes_manifest_options=options, kubernetes_manifest_format=True
    )
    manifests = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    for manifest in manifests:
        manifest["spec"]["description"] = description(variant.stages)
    path.write_text(yaml.safe_dump_all(manifests, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return digest


def upload_pipeline(
    server: Server, limits: RunLimits = NO_LIMITS, *, in_parts: bool = False, stages: int = 1
) -> PipelineVersion:
    """Makes the pipeline, as it is compiled here, a version on the server, unless it has this content already.

    It trains so many `stages`: several are those of a curriculum.

    Raises:
        ServerError: the server refuses it, or does not answer.
        LimitsError: it is too old for limits.
    """
    limits.check(server.release)
    variant = Variant(stages=stages, in_parts=in_parts, release=server.release or OLDEST, limits=limits)
    about = description(stages)
    with TemporaryDirectory() as folder, explained(server.url):
        package = Path(folder) / f"{variant.name}.yaml"
        digest = compile_pipeline(package, variant)
        name = f"{variant.name}-{digest}"
        pipeline_id = _find_pipeline(server, variant.name)
        if pipeline_id is None:
            pipeline_id = _create_pipeline(server, variant.name, about)
        found = _find_version(server, pipeline_id, name)
        if found is None:
            found = _upload_version(server, package, pipeline_id, name, about)
            return PipelineVersion(pipeline_id, found, name, variant.name, is_new=True)
    return PipelineVersion(pipeline_id, found, name, variant.name, is_new=False)


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


def run_name(base: str) -> str:
    """A display name that says when: KFP lists runs by it."""
    return f"{base} {datetime.now():%Y-%m-%d %H:%M:%S}"


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


def _create_pipeline(server: Server, name: str, about: str) -> str:
    body = kfp_server_api.V2beta1Pipeline(display_name=name, name=name, namespace=server.namespace, description=about)
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


def _upload_version(server: Server, package: Path, pipeline_id: str, name: str, about: str) -> str:
    try:
        made = server.uploads.upload_pipeline_version(
            str(package), name=name, pipelineid=pipeline_id, description=about
        )
    except ApiException as error:
        found = _find_version(server, pipeline_id, name) if error.status == 409 else None
        if found is None:
            raise
        return found
    return str(made.pipeline_version_id)
