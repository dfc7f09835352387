"""The pipeline of a curriculum: the chain of steps once for each stage, each on the model of the one before."""

from typing import Any

from kfp import dsl
from kfp.dsl.graph_component import GraphComponent

from components.run_end.component import run_end
from ivcp.settings.curriculum import pipeline_name
from ivcp.settings.form import CURRICULUM_SUMMARY, FIELDS, PREFIX, curriculum_docstring
from pipelines.chain import Chain, deployment
from pipelines.placement import LIGHT, place


def curriculum(stages: int, *, in_parts: bool = False) -> GraphComponent:
    """Kubeflow's pipeline for curricula of so many stages: the last one's model is served.

    Each stage is a chain of its own behind the gate of the one before; `in_parts` is that of `action_cls`, which trains
    a single stage.
    """

    def pipeline(
        settings: str = "",
        overrides: dict[str, Any] = {},  # noqa: B006 (KFP reads the default, nobody changes it)
        deploy: bool = True,
    ) -> None:
        empty = {f"{PREFIX}{key}": "" for key in FIELDS}
        given = {"settings": settings, "overrides": overrides, **empty}

        def add_stage(number: int, base: Any) -> None:
            """Adds a stage that starts from `base`, and those behind it."""
            is_last = number == stages
            chain = Chain(
                deploy=deploy if is_last else False,
                behind=deployment(deploy) if is_last else lambda made: add_stage(number + 1, made.model_uri),
                in_parts=in_parts,
                stage=number,
                stages=stages,
            )
            chain.add(given | {f"{PREFIX}model_name_or_path": base})

        ended = run_end(
            settings=settings, overrides=overrides, pipeline_run=dsl.PIPELINE_JOB_ID_PLACEHOLDER, stages=stages
        )
        place(ended, LIGHT, retries=2)
        with dsl.ExitHandler(ended, name="all stages"):
            add_stage(1, "")

    pipeline.__doc__ = curriculum_docstring()
    return dsl.pipeline(name=pipeline_name(stages), description=CURRICULUM_SUMMARY)(pipeline)
