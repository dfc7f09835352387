"""The first step for Kubeflow Pipelines: settings, tracking and the data's fingerprint."""

from typing import Any, NamedTuple

from kfp import dsl

from ivcp.kubernetes import images


@dsl.component(base_image=images.DATA, install_kfp_package=False)
def run_start(
    pipeline_run: str,
    pipeline_run_name: str,
    stage: int,
    stages: int,
    deploy: bool,
    settings: str,
    overrides: dict[str, Any],
    set_dataset: str,
    set_dataset_dir: str,
    set_learning_rate: str,
    set_min_top1_accuracy: str,
    set_model_name_or_path: str,
    set_num_train_epochs: str,
    set_serve_target: str,
    set_skip_unchanged: str,
    set_test_dataset: str,
    set_test_size: str,
    set_train_accelerator_count: str,
    run_config: dsl.Output[dsl.Artifact],
) -> NamedTuple(  # type: ignore[valid-type]
    "RunStart",
    [
        ("data_settings", str),
        ("data_fingerprint", str),
        ("shards_uri", str),
        ("accelerator_type", str),
        ("accelerators", str),
        ("cpu", str),
        ("memory", str),
        ("node_selector", dict),
        ("tolerations", list),
        ("evaluation_accelerators", str),
        ("model_cpu", str),
        ("model_memory", str),
        ("model_node_selector", dict),
        ("model_tolerations", list),
    ],
):
    """Resolves the run's settings, opens its MLflow run, lists its data, and says what the later steps ask for."""
    parameters = dict(locals())
    from ivcp.lifecycle.start import run_step

    return run_step(parameters, run_config=run_config.path, run_config_uri=run_config.uri)
