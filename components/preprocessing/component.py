"""The `preprocessing` step for Kubeflow Pipelines: all of it, or after a plan and parts side by side what is left."""

from typing import Optional

from kfp import dsl

from ivcp.kubernetes import images


@dsl.component(base_image=images.DATA, install_kfp_package=False)
def preprocessing_plan(
    validated: dsl.Input[dsl.Dataset],
    shards_uri: str,
    pipeline_run: str,
) -> list[str]:
    """Says into which parts the clips are divided, and names each so that the cluster's cache finds finished ones."""
    from ivcp.preparation.step import run_plan

    return run_plan(validated=validated.path, shards_uri=shards_uri, pipeline_run=pipeline_run)


@dsl.component(base_image=images.DATA, install_kfp_package=False)
def preprocessing_part(
    validated: dsl.Input[dsl.Dataset],
    part: str,
) -> str:
    """Decodes the clips of one part and writes their shards where its name says; says what it did."""
    from ivcp.preparation.step import run_part

    return run_part(validated=validated.path, part=part)


@dsl.component(base_image=images.DATA, install_kfp_package=False)
def preprocessing(
    run_config: dsl.Input[dsl.Artifact],
    validated: dsl.Input[dsl.Dataset],
    shards_uri: str,
    deploy: bool,
    prepared: dsl.Output[dsl.Dataset],
    parts: Optional[list[str]] = None,  # noqa: UP045 (KFP knows no other spelling)
) -> bool:
    """Prepares all clips, or indexes what `parts` of them wrote; says whether there is anything to train.

    With `deploy` there is also something to train where the champion is not in service.
    """
    from ivcp.preparation.step import run_step

    return run_step(
        run_config=run_config.path,
        validated=validated.path,
        shards_uri=shards_uri,
        deploy=deploy,
        prepared=prepared.path,
        parts=parts,
    )
