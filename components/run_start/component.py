"""The first step for Kubeflow Pipelines: settings, tracking and the data's fingerprint."""

from typing import Any, NamedTuple

from kfp import dsl

from ivcp.kubernetes import images


@dsl.component(base_image=images.DATA, install_kfp_package=False)
def run_start(
    pipeline_run: str,
    pipeline_run_name: str,
    model_name_or_path: str,
    dataset: str,
    shards_uri: str,
    dataset_dir: str,
    test_dataset: str,
    val_size: float,
    test_size: float,
    video_max_pixels: int,
    lora_rank: int,
    learning_rate: float,
    num_train_epochs: float,
    per_device_train_batch_size: int,
    min_top1_accuracy: float,
    registered_model_name: str,
    skip_unchanged: bool,
    train_launcher: str,
    train_accelerator_type: str,
    train_accelerator_count: int,
    train_cpu: str,
    train_memory: str,
    train_node_selector: dict[str, str],
    train_tolerations: list[dict[str, Any]],
    overrides: dict[str, Any],
    run_config: dsl.Output[dsl.Artifact],
) -> NamedTuple(  # type: ignore[valid-type]
    "RunStart",
    [
        ("data_settings", str),
        ("data_fingerprint", str),
        ("accelerators", str),
        ("evaluation_accelerators", str),
        ("cpu", str),
        ("memory", str),
        ("node_selector", dict),
        ("tolerations", list),
    ],
):
    """Resolves the run's settings, opens its MLflow run, lists its data, and says what training asks for."""
    parameters = dict(locals())
    from ivcp.lifecycle.start import run_step

    return run_step(parameters, run_config=run_config.path)
