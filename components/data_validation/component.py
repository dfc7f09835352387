"""The `data_validation` step for Kubeflow Pipelines."""

from kfp import dsl

from ivcp.kubernetes import images


@dsl.component(base_image=images.DATA, install_kfp_package=False)
def data_validation(
    data_settings: str,
    data_fingerprint: str,
    validated: dsl.Output[dsl.Dataset],
    report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Checks every row and every video, and assigns splits. `data_fingerprint` is for the cluster's cache."""
    from ivcp.validation.step import run_step

    headline = run_step(data_settings, validated=validated.path, report=report.path)
    for name, value in headline.items():
        metrics.log_metric(name, value)
