"""The pipeline: validate, prepare, train, evaluate, and after the gate export and serve."""

from dataclasses import replace
from typing import Any

from kfp import dsl
from kfp.dsl import PipelineTask
from kfp.dsl.graph_component import GraphComponent

from components.data_validation.component import data_validation
from components.evaluation.component import evaluation
from components.export.component import export
from components.preprocessing.component import preprocessing, preprocessing_part, preprocessing_plan
from components.run_end.component import run_end
from components.run_start.component import run_start
from components.serving.component import serving
from components.training.component import training
from ivcp.kubernetes import images
from ivcp.settings.form import SUMMARY, docstring
from pipelines.placement import DECODING, LIGHT, MODEL_DISK_GIGABYTES, Resources, place, place_on_accelerators

PIPELINE_NAME = "action-cls"


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
        given = {name: value for name, value in locals().items() if name != "in_parts"}
        run_id, run_name = dsl.PIPELINE_JOB_ID_PLACEHOLDER, dsl.PIPELINE_JOB_NAME_PLACEHOLDER
        ended = run_end(settings=settings, overrides=overrides, pipeline_run=run_id)
        place(ended, LIGHT, retries=2)
        with dsl.ExitHandler(ended, name="validate to deploy"):
            started = run_start(pipeline_run=run_id, pipeline_run_name=run_name, **given)
            place(started, LIGHT, retries=3, reads_base=True)
            run_config, shards_uri = started.outputs["run_config"], started.outputs["shards_uri"]
            checked = data_validation(
                data_settings=started.outputs["data_settings"], data_fingerprint=started.outputs["data_fingerprint"]
            )
            place(checked, DECODING, shm="2Gi", retries=1, cached=True, reads_base=True)
            prepare = _prepared_in_parts if in_parts else _prepared_at_once
            clips = prepare(run_config, checked.outputs["validated"], shards_uri, deploy)
            prepared = clips.outputs["prepared"]
            with dsl.If(clips.outputs["Output"] == True, name="if changed: train"):  # noqa: E712 (a placeholder)
                trained = training(run_config=run_config, prepared=prepared, run_id=run_id)
                place_on_accelerators(
                    trained,
                    accelerator_type=started.outputs["accelerator_type"],
                    accelerators=started.outputs["accelerators"],
                    cpu=started.outputs["cpu"],
                    memory=started.outputs["memory"],
                    node_selector=started.outputs["node_selector"],
                    tolerations=started.outputs["tolerations"],
                    retries=2,
                )
                trained.set_env_variable(images.VARIABLES["training"], images.TRAINING)  # of a TrainJob's pods
                adapter = trained.outputs["adapter"]
                measured = evaluation(run_config=run_config, prepared=prepared, adapter=adapter)
                place_on_accelerators(
                    measured,
                    accelerator_type=started.outputs["accelerator_type"],
                    accelerators=started.outputs["evaluation_accelerators"],
                    cpu=started.outputs["model_cpu"],
                    memory=started.outputs["model_memory"],
                    node_selector=started.outputs["model_node_selector"],
                    tolerations=started.outputs["model_tolerations"],
                    retries=2,
                )
                results = measured.outputs["results"]
                with dsl.If(measured.outputs["Output"] == True, name="if good: export"):  # noqa: E712
                    _export_and_deploy(started, run_config, prepared, adapter, results, deploy)

    pipeline.__doc__ = docstring()
    return dsl.pipeline(name=PIPELINE_NAME, description=SUMMARY)(pipeline)


def _export_and_deploy(
    started: PipelineTask, run_config: Any, prepared: Any, adapter: Any, results: Any, deploy: Any
) -> None:
    """What comes behind the gate; the serving step's memory is what export says that it needs."""
    cpu, memory = started.outputs["model_cpu"], started.outputs["model_memory"]
    exported = export(run_config=run_config, prepared=prepared, adapter=adapter, results=results, deploy=deploy)
    place(exported, Resources(cpu, cpu, memory, memory, MODEL_DISK_GIGABYTES), retries=2, reads_base=True)
    with dsl.If(deploy == True, name="if asked: deploy"):  # noqa: E712
        served = serving(
            run_config=run_config,
            model=exported.outputs["model"],
            results=results,
            predictor_image=images.SERVING,  # a pod does not know what the compiler's environment named
        )
        needed = exported.outputs["Output"]
        place(served, replace(LIGHT, memory_request=needed, memory_limit=needed))


def _prepared_at_once(run_config: Any, validated: Any, shards_uri: Any, deploy: Any) -> PipelineTask:
    """The step `preprocessing` alone."""
    clips = preprocessing(run_config=run_config, validated=validated, shards_uri=shards_uri, deploy=deploy)
    return place(clips, DECODING, shm="2Gi", retries=2, reads_base=True)


def _prepared_in_parts(run_config: Any, validated: Any, shards_uri: Any, deploy: Any) -> PipelineTask:
    """A plan, a pod for each part of it, and the step `preprocessing`, which makes one index of all.

    The loop has no name of its own: servers before 2.16 look for its results by the name (kubeflow/pipelines#13239).
    """
    planned = preprocessing_plan(
        validated=validated, shards_uri=shards_uri, pipeline_run=dsl.PIPELINE_JOB_ID_PLACEHOLDER
    )
    place(planned, LIGHT, retries=2, reads_base=True)
    with dsl.ParallelFor(planned.output) as part:
        shards = preprocessing_part(validated=validated, part=part)
        place(shards, DECODING, shm="2Gi", retries=2, cached=True, reads_base=True)
    clips = preprocessing(
        run_config=run_config,
        validated=validated,
        shards_uri=shards_uri,
        deploy=deploy,
        parts=dsl.Collected(shards.output),
    )
    return place(clips, LIGHT, retries=2, reads_base=True)
