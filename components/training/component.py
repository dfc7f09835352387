"""The `training` step for Kubeflow Pipelines."""

from kfp import dsl

from ivcp.kubernetes import images


@dsl.component(base_image=images.TRAINING, install_kfp_package=False)
def training(
    run_config: dsl.Input[dsl.Artifact],
    prepared: dsl.Input[dsl.Dataset],
    run_id: str,
    adapter: dsl.Output[dsl.Model],
) -> None:
    """Trains the action classifier; the artifact is a complete adapter directory."""
    from ivcp.launch.step import run_step

    run_step(run_config=run_config.path, prepared=prepared.path, adapter=adapter.path, run_id=run_id)
