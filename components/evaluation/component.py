"""The `evaluation` step for Kubeflow Pipelines."""

from kfp import dsl

from ivcp.kubernetes import images


@dsl.component(base_image=images.TRAINING, install_kfp_package=False)
def evaluation(
    run_config: dsl.Input[dsl.Artifact],
    prepared: dsl.Input[dsl.Dataset],
    adapter: dsl.Input[dsl.Model],
    results: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    confusion_matrix: dsl.Output[dsl.ClassificationMetrics],
    report: dsl.Output[dsl.HTML],
) -> bool:
    """Measures the adapter on the test split and returns the gate's verdict."""
    from ivcp.evaluation.step import run_step

    outcome = run_step(
        run_config=run_config.path,
        prepared=prepared.path,
        adapter=adapter.path,
        results=results.path,
        report=report.path,
    )
    for name, value in outcome.headline.items():
        metrics.log_metric(name, value)
    for label_names, matrix in outcome.confusion_matrices:
        confusion_matrix.log_confusion_matrix(label_names, matrix)
    return outcome.passed
