"""The `serving` step: deploys a model directory and checks its answer."""

from __future__ import annotations

from pathlib import Path

from components.artifacts import METRICS_FILE
from components.config_files import read_saved_config
from components.evaluation_metrics import EvaluationMetrics
from components.exported_model import EXPORT_RESULT_FILE, ExportResult
from components.serving.deploy_cluster import ClusterDeployment, deploy_cluster
from components.serving.deploy_local import DeploymentResult, deploy_local
from components.serving.predictor_manifests import ServedModel
from components.serving.smoke_test import choose_smoke_clip
from components.step_records import recorded_step


def run_step(*, run_config: str, model: str, results: str, deployment: str) -> None:
    """Deploys the model directory `model`, asks it for a clip of the predictions in `results`, writes `deployment`."""
    with recorded_step("serving") as outcome:
        result = _deploy(
            run_config=Path(run_config), model_dir=Path(model), results=Path(results), output=Path(deployment)
        )
        outcome.result = result.summary
        outcome.directory = deployment


def _deploy(*, run_config: Path, model_dir: Path, results: Path, output: Path) -> DeploymentResult | ClusterDeployment:
    config, smoke_clip = read_saved_config(run_config), choose_smoke_clip(results)
    if config.serving.serve_target == "local":
        return deploy_local(config, model_dir=model_dir, smoke_clip=smoke_clip, output_dir=output)
    model = served_model(model_dir, results)
    return deploy_cluster(config, model=model, model_dir=model_dir, smoke_clip=smoke_clip, output_dir=output)


def served_model(model_dir: Path, results: Path) -> ServedModel:
    """The model as export registered it and evaluation measured it."""
    exported = ExportResult.read(model_dir / EXPORT_RESULT_FILE)
    metrics = EvaluationMetrics.read(results / METRICS_FILE)
    return ServedModel(
        uri=exported.registered.source,
        name=exported.registered.name,
        version=exported.registered.version,
        run_id=exported.run_id,
        top1_accuracy=metrics.top1_accuracy,
    )
