"""The `serving` step: deploys a model directory and checks its answer."""

from __future__ import annotations

from pathlib import Path

from ivcp.deployment.locally import DeploymentResult, deploy_local
from ivcp.deployment.on_cluster import ClusterDeployment, deploy_cluster
from ivcp.deployment.predictor_manifests import ServedModel
from ivcp.deployment.smoke_test import choose_smoke_clip
from ivcp.export.predictor_needs import PredictorNeeds, predictor_needs
from ivcp.kubernetes import images
from ivcp.records import METRICS_FILE
from ivcp.records.evaluation import EvaluationMetrics
from ivcp.records.export import EXPORT_RESULT_FILE, ExportResult
from ivcp.settings import RunConfig, read_saved_config
from ivcp.tracking import note_end, promote_model, tracked_run
from ivcp.tracking.steps import recorded_step


def run_step(
    *, run_config: str, model: str, results: str, deployment: str, predictor_image: str = images.SERVING
) -> None:
    """Deploys the model directory `model`, asks it for a clip that evaluation chose, and writes to `deployment`.

    The alias of the champion moves to the model last, when it has given the right answer.

    `predictor_image` is what runs on a cluster unless `serve_image` names another; the pipeline gives its own, since
    the environment that names images is that of whoever compiled it.
    """
    with recorded_step("serving") as outcome:
        config = read_saved_config(Path(run_config))
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

    def promote() -> None:
        if exported.registered is not None:
            promote_model(exported.registered, config=config, deployed_to=config.serving.place)

    if config.serving.serve_target != "cluster":
        result = deploy_local(config, model_dir=model_dir, smoke_clip=smoke_clip, output_dir=output_dir)
        promote()
        return result
    return deploy_cluster(
        config,
        image=config.serving.serve_image or predictor_image,
        model=served_model(exported, results, needs=predictor_needs(model_dir, config.serving)),
        model_dir=model_dir,
        smoke_clip=smoke_clip,
        output_dir=output_dir,
        promote=promote,
    )


def served_model(exported: ExportResult, results: Path, *, needs: PredictorNeeds | None = None) -> ServedModel:
    """The model as export registered it and evaluation measured it, and what its predictors need.

    Raises:
        ValueError: export did not register it.
    """
    if exported.registered is None:
        raise ValueError(
            f"{exported.model_dir} is not registered: a cluster deploys what export registered after evaluation"
        )
    metrics = EvaluationMetrics.read(results / METRICS_FILE)
    return ServedModel(
        uri=exported.registered.source,
        name=exported.registered.name,
        version=exported.registered.version,
        run_id=exported.run_id,
        top1_accuracy=metrics.top1_accuracy,
        needs=needs,
    )
