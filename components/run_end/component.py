"""The last step for Kubeflow Pipelines, which runs whatever became of the others."""

from typing import Any

from kfp import dsl

from ivcp.kubernetes import images


@dsl.component(base_image=images.DATA, install_kfp_package=False)
def run_end(
    settings: str,
    overrides: dict[str, Any],
    pipeline_run: str,
    stages: int,
    status: dsl.PipelineTaskFinalStatus,
    report: dsl.Output[dsl.Markdown],
) -> None:
    """Gives the MLflow run its final status and says what failed, or why nothing was to do."""
    from ivcp.lifecycle.end import run_step

    run_step(
        settings,
        overrides,
        pipeline_run=pipeline_run,
        stages=stages,
        state=status.state,
        error=status.error_message or "",
        report=report.path,
    )
