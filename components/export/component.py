"""The `export` step for Kubeflow Pipelines."""

from typing import NamedTuple

from kfp import dsl

from ivcp.kubernetes import images


@dsl.component(base_image=images.TRAINING, install_kfp_package=False)
def export(
    run_config: dsl.Input[dsl.Artifact],
    prepared: dsl.Input[dsl.Dataset],
    adapter: dsl.Input[dsl.Model],
    results: dsl.Input[dsl.Dataset],
    deploy: bool,
    model: dsl.Output[dsl.Model],
) -> NamedTuple("Exported", [("serving_memory", str), ("model_uri", str)]):  # type: ignore[valid-type]
    """Merges the adapter, checks the merged model against it, and registers it.

    Without `deploy` it receives its alias here, else when it is deployed. `serving_memory` is what that step needs, and
    `model_uri` where other steps read the model.
    """
    from ivcp.export.step import run_step

    return run_step(
        run_config=run_config.path,
        prepared=prepared.path,
        adapter=adapter.path,
        results=results.path,
        model=model.path,
        deploy=deploy,
    )
