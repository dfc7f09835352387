"""The pipeline: validate, prepare, train, evaluate, and after the gate export and serve."""

from dataclasses import replace
from typing import Any

from kfp import dsl

from components.data_validation.component import data_validation
from components.evaluation.component import evaluation
from components.export.component import export
from components.preprocessing.component import preprocessing, preprocessing_part, preprocessing_plan
from components.run_end.component import run_end
from components.run_start.component import run_start
from components.serving.component import serving
from components.training.component import training
from ivcp.kubernetes import images
from pipelines.placement import DECODING, LIGHT, MODEL_DISK_GIGABYTES, Resources, place, place_on_accelerators

PIPELINE_NAME = "action-cls"


@dsl.pipeline(name=PIPELINE_NAME)
def action_cls(
    model_name_or_path: str,
    dataset: str,
    shards_uri: str,
    dataset_dir: str = "data",
    test_dataset: str = "",
    val_size: float = 0.0,
    test_size: float = 0.0,
    video_max_pixels: int = 65536,
    lora_rank: int = 8,
    learning_rate: float = 5e-5,
    num_train_epochs: float = 3.0,
    per_device_train_batch_size: int = 8,
    min_top1_accuracy: float = 0.0,
    registered_model_name: str = "ivcp-action-classifier",
    skip_unchanged: bool = False,
    deploy: bool = True,
    train_launcher: str = "inline",
    train_accelerator_type: str = "nvidia.com/gpu",
    train_accelerator_count: int = 1,
    train_cpu: str = "4",
    train_memory: str = "32Gi",
    train_node_selector: dict[str, str] = {},  # noqa: B006 (KFP reads the defaults, nobody changes them)
    train_tolerations: list[dict[str, Any]] = [  # noqa: B006
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    ],
    overrides: dict[str, Any] = {},  # noqa: B006
) -> None:
    """Fine-tunes a video language model into an action classifier, and serves it when it is good enough.

    Args:
        model_name_or_path: The base model: the path of a local model directory, the id of a model on the Hugging Face
            hub, an s3:// prefix, or a version of MLflow's registry (models:/name@alias, models:/name/3).
        dataset: Names in `dataset_info.json` to train on, comma-separated.
        shards_uri: Folder or s3:// prefix that the prepared clips are written to. Null is in the runs folder of this
            machine; on a cluster every step must reach it.
        dataset_dir: Folder or s3:// prefix with `dataset_info.json`.
        test_dataset: Names of the data sets that only the evaluation step sees. Exclusive with `test_size`.
        val_size: Validation share (below 1) or number of clips (1 and above), cut from `dataset` by group.
        test_size: Test share or number of clips, cut from `dataset` by group.
        video_max_pixels: Most pixels per frame; larger frames are scaled down, keeping their aspect.
        lora_rank: Rank of the LoRA matrices.
        learning_rate: Peak learning rate of the language model or its adapter, and of whatever has none of its own.
        num_train_epochs: Passes over the training split.
        per_device_train_batch_size: Clips per forward pass and process.
        min_top1_accuracy: The gate: a model below this is neither exported nor deployed.
        registered_model_name: Name in MLflow's model registry, without `/` and `:`.
        skip_unchanged: End the pipeline before training, and well, when neither data nor settings changed since the
            champion.
        deploy: Deploy the model when it passes the gate.
        train_launcher: Train in the step itself (`inline`), or in a Kubeflow TrainJob that the step starts and follows
            (`trainjob`).
        train_accelerator_type: Kubernetes' name of the accelerator that training and evaluation ask for.
        train_accelerator_count: Accelerators of the training step, as many as `train_processes_per_node`; evaluation
            takes one of them. 0 trains on CPUs. With `train_launcher: trainjob` the training step itself holds none.
        train_cpu: CPUs of the steps that load the model: training, evaluation and export.
        train_memory: Memory of the same steps; /dev/shm is part of it.
        train_node_selector: Labels of the nodes that training and evaluation run on, e.g.
            {"cloud.google.com/gke-accelerator": "nvidia-l4"}.
        train_tolerations: Taints of these nodes that are tolerated, as Kubernetes spells them.
        overrides: Any other setting by its key, e.g. {"weight_decay": 0.05}; it wins over the parameters above.
    """
    settings = dict(locals())
    settings.pop("deploy")
    run_id, run_name = dsl.PIPELINE_JOB_ID_PLACEHOLDER, dsl.PIPELINE_JOB_NAME_PLACEHOLDER
    ended = run_end(overrides=overrides, pipeline_run=run_id)
    place(ended, LIGHT, retries=2)
    with dsl.ExitHandler(ended, name="run"):
        started = run_start(pipeline_run=run_id, pipeline_run_name=run_name, **settings)
        place(started, LIGHT, retries=3, reads_base=True)
        run_config = started.outputs["run_config"]
        checked = data_validation(
            data_settings=started.outputs["data_settings"], data_fingerprint=started.outputs["data_fingerprint"]
        )
        place(checked, DECODING, shm="2Gi", retries=1, cached=True, reads_base=True)
        validated = checked.outputs["validated"]
        planned = preprocessing_plan(validated=validated, shards_uri=shards_uri, pipeline_run=run_id)
        place(planned, LIGHT, retries=2, reads_base=True)
        with dsl.ParallelFor(planned.output, name="preprocessing-parts") as part:
            shards = preprocessing_part(validated=validated, shards_uri=shards_uri, part=part)
            place(shards, DECODING, shm="2Gi", retries=2, cached=True, reads_base=True)
        clips = preprocessing(
            run_config=run_config,
            validated=validated,
            shards_uri=shards_uri,
            parts=dsl.Collected(shards.output),
            deploy=deploy,
        )
        place(clips, LIGHT, retries=2, reads_base=True)
        prepared = clips.outputs["prepared"]
        with dsl.If(clips.outputs["Output"] == True, name="changed"):  # noqa: E712 (KFP compares a placeholder)
            trained = training(run_config=run_config, prepared=prepared, run_id=run_id)
            place_on_accelerators(
                trained,
                accelerator_type=train_accelerator_type,
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
                accelerator_type=train_accelerator_type,
                accelerators=started.outputs["evaluation_accelerators"],
                cpu=train_cpu,
                memory=train_memory,
                node_selector=train_node_selector,
                tolerations=train_tolerations,
                retries=2,
            )
            results = measured.outputs["results"]
            with dsl.If(measured.outputs["Output"] == True, name="gate"):  # noqa: E712
                exported = export(
                    run_config=run_config, prepared=prepared, adapter=adapter, results=results, deploy=deploy
                )
                merging = Resources(train_cpu, train_cpu, train_memory, train_memory, MODEL_DISK_GIGABYTES)
                place(exported, merging, retries=2, reads_base=True)
                with dsl.If(deploy == True, name="deploy"):  # noqa: E712
                    served = serving(
                        run_config=run_config,
                        model=exported.outputs["model"],
                        results=results,
                        predictor_image=images.SERVING,  # a pod does not know what the compiler's environment named
                    )
                    memory = exported.outputs["Output"]
                    place(served, replace(LIGHT, memory_request=memory, memory_limit=memory))
