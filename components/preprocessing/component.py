"""The `preprocessing` step for Kubeflow Pipelines."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.DATA, install_kfp_package=False)
def preprocessing(
    run_config: dsl.Input[dsl.Artifact],
    validated: dsl.Input[dsl.Dataset],
    shards_uri: str,
    prepared: dsl.Output[dsl.Dataset],
) -> None:
    """Decodes every clip once and writes shards below `shards_uri`; the artifact is their index."""
    from components.preprocessing.step import run_step

    run_step(run_config=run_config.path, validated=validated.path, shards_uri=shards_uri, prepared=prepared.path)
