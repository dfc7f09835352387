"""The `data_validation` step for Kubeflow Pipelines."""

from typing import Any

from kfp import dsl

from components import images


@dsl.component(base_image=images.DATA, install_kfp_package=False)
def data_validation(
    model_name_or_path: str,
    dataset: str,
    dataset_dir: str,
    eval_dataset: str,
    test_dataset: str,
    val_size: float,
    test_size: float,
    max_invalid_fraction: float,
    preprocessing_parts: int,
    cutoff_len: int,
    video_fps: float,
    video_maxlen: int,
    video_max_pixels: int,
    finetuning_type: str,
    lora_rank: int,
    action_decoder_type: str,
    learning_rate: float,
    num_train_epochs: float,
    per_device_train_batch_size: int,
    gradient_accumulation_steps: int,
    min_top1_accuracy: float,
    registered_model_name: str,
    overrides: dict[str, Any],
    run_config: dsl.Output[dsl.Artifact],
    validated: dsl.Output[dsl.Dataset],
    report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Resolves the run's settings, checks every row and every video, and assigns splits."""
    settings = dict(locals())
    from components.data_validation.step import run_step

    headline = run_step(settings, run_config=run_config.path, validated=validated.path, report=report.path)
    for name, value in headline.items():
        metrics.log_metric(name, value)
