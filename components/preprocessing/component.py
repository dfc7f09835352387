"""The `preprocessing` step for Kubeflow Pipelines: a plan, parts side by side, and one index of all."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.DATA, install_kfp_package=False)
def preprocessing_plan(
    run_config: dsl.Input[dsl.Artifact],
    validated: dsl.Input[dsl.Dataset],
    shards_uri: str,
) -> list[int]:
    """Says into which parts the clips are divided: one, where they are prepared already."""
    from components.preprocessing.step import run_plan

    return run_plan(run_config=run_config.path, validated=validated.path, shards_uri=shards_uri)


@dsl.component(base_image=images.DATA, install_kfp_package=False)
def preprocessing_part(
    run_config: dsl.Input[dsl.Artifact],
    validated: dsl.Input[dsl.Dataset],
    shards_uri: str,
    part: int,
) -> str:
    """Decodes the clips of one part and writes their shards below `shards_uri`; says what it did."""
    from components.preprocessing.step import run_part

    return run_part(run_config=run_config.path, validated=validated.path, shards_uri=shards_uri, part=part)


@dsl.component(base_image=images.DATA, install_kfp_package=False)
def preprocessing(
    run_config: dsl.Input[dsl.Artifact],
    validated: dsl.Input[dsl.Dataset],
    shards_uri: str,
    parts: list[str],
    prepared: dsl.Output[dsl.Dataset],
) -> None:
    """Makes the index of all shards; the artifact is this index. `parts` is what the parts did."""
    from components.preprocessing.step import run_merge

    run_merge(
        run_config=run_config.path,
        validated=validated.path,
        shards_uri=shards_uri,
        parts=parts,
        prepared=prepared.path,
    )
