"""The pipeline: validate, prepare, train, evaluate, and after the gate export and serve."""

from typing import Any

from kfp import dsl
from kfp.dsl.graph_component import GraphComponent

from components.run_end.component import run_end
from ivcp.settings.curriculum import pipeline_name
from ivcp.settings.form import SUMMARY, docstring
from pipelines.chain import Chain, deployment
from pipelines.placement import LIGHT, place


def action_cls(*, in_parts: bool = False) -> GraphComponent:
    """Kubeflow's pipeline: fine-tunes a video language model into an action classifier, and serves it.

    `in_parts` prepares the clips in several pods side by side, in a loop inside the exit handler. Without it, one pod
    prepares them with a worker process per core: KFP before 2.16 fails on such a loop (kubeflow/pipelines#12390), and
    later ones have called such a run RUNNING for ever (#13321).
    """

    def pipeline(
        settings: str = "",
        overrides: dict[str, Any] = {},  # noqa: B006 (KFP reads the default, nobody changes it)
        deploy: bool = True,
        set_dataset: str = "",
        set_dataset_dir: str = "",
        set_learning_rate: str = "",
        set_min_top1_accuracy: str = "",
        set_model_name_or_path: str = "",
        set_num_train_epochs: str = "",
        set_serve_target: str = "",
        set_skip_unchanged: str = "",
        set_test_dataset: str = "",
        set_test_size: str = "",
        set_train_accelerator_count: str = "",
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in ("in_parts", "deploy")}
        ended = run_end(settings=settings, overrides=overrides, pipeline_run=dsl.PIPELINE_JOB_ID_PLACEHOLDER, stages=1)
        place(ended, LIGHT, retries=2)
        with dsl.ExitHandler(ended, name="validate to deploy"):
            Chain(deploy, deployment(deploy), in_parts=in_parts).add(given)

    pipeline.__doc__ = docstring()
    return dsl.pipeline(name=pipeline_name(1), description=SUMMARY)(pipeline)
