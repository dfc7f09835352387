"""The `serving` step for Kubeflow Pipelines."""

from kfp import dsl

from ivcp.kubernetes import images


@dsl.component(base_image=images.SERVING, install_kfp_package=False)
def serving(
    run_config: dsl.Input[dsl.Artifact],
    model: dsl.Input[dsl.Model],
    results: dsl.Input[dsl.Dataset],
    predictor_image: str,
    deployment: dsl.Output[dsl.Artifact],
) -> None:
    """Deploys the model, sends it a test clip and compares the answer with evaluation's."""
    from ivcp.deployment.step import run_step

    run_step(
        run_config=run_config.path,
        model=model.path,
        results=results.path,
        deployment=deployment.path,
        predictor_image=predictor_image,
    )
