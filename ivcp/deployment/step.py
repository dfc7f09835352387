"""The `serving` step: deploys a model directory and checks its answer."""

from __future__ import annotations

from pathlib import Path

from ivcp import storage
from ivcp.deployment.locally import DeploymentResult, deploy_local
from ivcp.deployment.on_cluster import ClusterDeployment, deploy_cluster
from ivcp.deployment.predictor_manifests import ServedModel
from ivcp.deployment.smoke_test import DeploymentError, choose_smoke_clip
from ivcp.evaluation.moved import check_champion
from ivcp.export.deployed_next import why_not_deployed
from ivcp.export.predictor_needs import PredictorNeeds, predictor_needs
from ivcp.kubernetes import images
from ivcp.models.graphs.run import RuntimeMissingError, check_installed
from ivcp.records import METRICS_FILE
from ivcp.records.evaluation import EvaluationMetrics
from ivcp.records.export import EXPORT_RESULT_FILE, ExportResult
from ivcp.records.language_evaluation import read_metrics
from ivcp.settings import RunConfig, read_saved_config
from ivcp.tracking import note_end, promote_model, tracked_run
from ivcp.tracking.steps import recorded_step


def run_step(
    *, run_config: str, model: str, results: str, deployment: str, predictor_image: str = images.SERVING
) -> None:
    """Deploys the model directory `model`, asks it for a clip that evaluation chose, and writes to `deployment`.

    The alias of the champion moves to the model last, when it has given the right answer. Nothing is deployed of what
    `why_not_deployed` names.

    `predictor_image` is what runs on a cluster unless `serve_image` names another; the pipeline gives its own, since
    the environment that names images is that of whoever compiled it.
    """
    with recorded_step("serving") as outcome:
        config = read_saved_config(Path(run_config))
        if reason := why_not_deployed(config):
            outcome.result = f"nothing is deployed: {reason}"
            note_end(config, outcome.result)
            return
        with tracked_run(config, step="serving"):
            result = _deployed(
                config,
                model_dir=Path(model),
                results=Path(results),
                output_dir=Path(deployment),
                predictor_image=predictor_image,
            )
        note_end(config, result.summary)
        outcome.result = result.summary
        outcome.directory = deployment


def _deployed(
    config: RunConfig, *, model_dir: Path, results: Path, output_dir: Path, predictor_image: str
) -> DeploymentResult | ClusterDeployment:
    exported, smoke_clip = ExportResult.read(model_dir / EXPORT_RESULT_FILE), choose_smoke_clip(results)
    registered = exported.registered

    def check() -> None:
        if registered is not None:
            check_champion(config, registered, read_metrics(results / METRICS_FILE))

    def promote() -> None:
        check()
        if registered is not None:
            promote_model(registered, config=config, deployed_to=config.serving.place)

    check()  # before anything is started
    served_dir = _served_directory(config, model_dir)
    if config.serving.serve_target != "cluster":
        result = deploy_local(config, model_dir=served_dir, smoke_clip=smoke_clip, output_dir=output_dir)
        promote()
        return result
    return deploy_cluster(
        config,
        image=config.serving.serve_image or predictor_image,
        model=served_model(
            exported, results, needs=predictor_needs(served_dir, config.serving), folder=config.deployed_graph
        ),
        model_dir=served_dir,
        smoke_clip=smoke_clip,
        output_dir=output_dir,
        promote=promote,
    )


def _served_directory(config: RunConfig, model_dir: Path) -> Path:
    """The exported directory, or the folder of its graph.

    Raises:
        DeploymentError: this machine, or the predictor's image, which the step runs in too unless `serve_image` names
            another, cannot run the graph.
    """
    if config.deployed_graph is None:
        return model_dir
    runtime = config.export.graph_runtime
    if runtime is not None and (config.serving.serve_target != "cluster" or config.serving.serve_image is None):
        try:
            check_installed(runtime)
        except RuntimeMissingError as error:
            raise DeploymentError(f"{error}; or set serve_graph: false, which deploys the PyTorch model") from error
    return model_dir / config.deployed_graph


def served_model(
    exported: ExportResult, results: Path, *, needs: PredictorNeeds | None = None, folder: str | None = None
) -> ServedModel:
    """The model as export registered it and evaluation measured it, and what its predictors need.

    `folder` is that of a graph which is deployed in place of the registered directory that it lies in.

    Raises:
        ValueError: export did not register it.
    """
    if exported.registered is None:
        raise ValueError(
            f"{exported.model_dir} is not registered: a cluster deploys what export registered after evaluation"
        )
    metrics, source = read_metrics(results / METRICS_FILE), exported.registered.source
    return ServedModel(
        uri=storage.join(source, folder) if folder else source,
        name=exported.registered.name,
        version=exported.registered.version,
        run_id=exported.run_id,
        top1_accuracy=metrics.top1_accuracy if isinstance(metrics, EvaluationMetrics) else None,
        measured=None if isinstance(metrics, EvaluationMetrics) else metrics.summary,
        needs=needs,
    )
