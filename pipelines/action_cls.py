"""The pipeline: validate, prepare, train, evaluate, and behind the gate export and serve."""

from typing import Any

from kfp import dsl

from components.data_validation.component import data_validation
from components.evaluation.component import evaluation
from components.export.component import export
from components.preprocessing.component import preprocessing, preprocessing_part, preprocessing_plan
from components.serving.component import serving
from components.training.component import training

PIPELINE_NAME = "action-cls"


@dsl.pipeline(name=PIPELINE_NAME)
def action_cls(
    model_name_or_path: str,
    dataset: str,
    shards_uri: str,
    dataset_dir: str = "data",
    eval_dataset: str = "",
    test_dataset: str = "",
    val_size: float = 0.0,
    test_size: float = 0.0,
    max_invalid_fraction: float = 0.05,
    preprocessing_parts: int = 1,
    cutoff_len: int = 2048,
    video_fps: float = 2.0,
    video_maxlen: int = 128,
    video_max_pixels: int = 65536,
    finetuning_type: str = "lora",
    lora_rank: int = 8,
    action_decoder_type: str = "linear",
    learning_rate: float = 5e-5,
    num_train_epochs: float = 3.0,
    per_device_train_batch_size: int = 8,
    gradient_accumulation_steps: int = 1,
    min_top1_accuracy: float = 0.0,
    registered_model_name: str = "ivcp-action-classifier",
    deploy: bool = True,
    overrides: dict[str, Any] = {},  # noqa: B006 (KFP reads the default, nobody changes it)
) -> None:
    """Fine-tunes a video language model into an action classifier, and serves it when it is good enough.

    Args:
        model_name_or_path: Path of a local model directory, or the id of a model on the Hugging Face hub.
        dataset: Names in `dataset_info.json` to train on, comma-separated.
        shards_uri: Folder or s3:// prefix that the prepared clips are written to.
        dataset_dir: Folder or s3:// prefix with `dataset_info.json`.
        eval_dataset: Names of the validation data sets. Exclusive with `val_size`.
        test_dataset: Names of the data sets that only the evaluation step sees. Exclusive with `test_size`.
        val_size: Validation share (below 1) or number of clips (1 and above), cut from `dataset` by group.
        test_size: Test share or number of clips, cut from `dataset` by group.
        max_invalid_fraction: Share of rows whose video may be unusable; more fails the validation step.
        preprocessing_parts: Tasks that prepare clips side by side on a cluster, each whole shards; every one is a pod.
        cutoff_len: Longest sample in tokens. A longer one is an error that names the row; nothing is ever cut.
        video_fps: Frames per second to sample when `video_num_frames` is null.
        video_maxlen: Most frames per clip when sampling by `video_fps`.
        video_max_pixels: Most pixels per frame; larger frames are scaled down, keeping their aspect.
        finetuning_type: Train LoRA matrices, all weights of the language model, or only its last layers (`freeze`).
        lora_rank: Rank of the LoRA matrices.
        action_decoder_type: Classifier on the hidden state at the action token: one linear layer, two with GELU, or
            transformer layers over the token's state, with the clip's own vision tokens or without.
        learning_rate: Peak learning rate of the language model or its adapter, and of whatever has none of its own.
        num_train_epochs: Passes over the training split.
        per_device_train_batch_size: Clips per forward pass and process.
        gradient_accumulation_steps: Forward passes per optimizer step.
        min_top1_accuracy: The gate: a model below this is neither exported nor deployed.
        registered_model_name: Name in MLflow's model registry.
        deploy: Deploy the model when it passes the gate.
        overrides: Any other setting by its key, e.g. {"weight_decay": 0.05}; it wins over the parameters above.
    """
    settings = dict(locals())
    for name in ("shards_uri", "deploy"):  # no settings of the run, but of where it runs
        settings.pop(name)
    checked = data_validation(**settings)
    run_config, validated = checked.outputs["run_config"], checked.outputs["validated"]
    planned = preprocessing_plan(run_config=run_config, validated=validated, shards_uri=shards_uri)
    with dsl.ParallelFor(planned.output, name="preprocessing-parts") as part:
        shards = preprocessing_part(run_config=run_config, validated=validated, shards_uri=shards_uri, part=part)
    clips = preprocessing(
        run_config=run_config, validated=validated, shards_uri=shards_uri, parts=dsl.Collected(shards.output)
    )
    prepared = clips.outputs["prepared"]
    trained = training(run_config=run_config, prepared=prepared, run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER)
    adapter = trained.outputs["adapter"]
    measured = evaluation(run_config=run_config, prepared=prepared, adapter=adapter)
    results = measured.outputs["results"]
    with dsl.If(measured.outputs["Output"] == True, name="gate"):  # noqa: E712 (KFP compares a placeholder)
        exported = export(run_config=run_config, prepared=prepared, adapter=adapter, results=results)
        with dsl.If(deploy == True, name="deploy"):  # noqa: E712
            served = serving(run_config=run_config, model=exported.outputs["model"], results=results)
    for task in (checked, planned, shards, clips, trained, measured, exported, served):
        task.set_caching_options(False)  # the cache's key sees neither the data nor our code
