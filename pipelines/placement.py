"""What each step of the pipeline gets on a cluster: resources, disk, memory to share, secrets, retries, caching.

KFP's local runner ignores all of it but retries, which `ivcp.pipeline_runs.local` leaves out.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kfp import kubernetes
from kfp.dsl import PipelineTask
from kfp.dsl.pipeline_channel import PipelineChannel

from ivcp import network, storage

S3_SECRET, MLFLOW_SECRET, HUB_SECRET, KEY_SECRET = "ivcp-s3", "ivcp-mlflow", "ivcp-hub", "ivcp-predictor-key"
SECRETS: dict[str, tuple[str, ...]] = {
    S3_SECRET: (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_ENDPOINT_URL",
        "AWS_REGION",
        "AWS_REQUEST_PAYER",
    ),
    MLFLOW_SECRET: ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"),
    HUB_SECRET: ("HF_TOKEN",),
    KEY_SECRET: ("IVCP_KEY",),
}
"""Kubernetes secrets → their keys, which become environment variables. Those that a cluster lacks are left out."""

MODELS_VARIABLE, MODELS_PATH = "IVCP_MODELS_CLAIM", "/models"
"""When the pipeline is compiled, the environment names a PersistentVolumeClaim with base models: it is mounted there,
in the steps that read one. Kubeflow Pipelines cannot leave a claim out when a pipeline runs."""

_SHM, _SHM_PATH = "shm", "/dev/shm"
_SCRATCH, _SCRATCH_PATH = "scratch", "/tmp"
_SHARE_OF_CACHE = 0.7
"""Of a step's disk: the rest is for the hub's cache, compiled kernels and what a step writes itself."""


@dataclass(frozen=True)
class Resources:
    """What a step asks for and may not exceed, in Kubernetes' words."""

    cpu_request: str
    cpu_limit: str
    memory_request: str
    memory_limit: str
    disk_gigabytes: int
    """Limit of /tmp, with all caches: a pod that passes it is evicted. What Kubeflow Pipelines itself downloads for a
    step, its artifacts, is not in it."""


LIGHT = Resources(cpu_request="250m", cpu_limit="2", memory_request="1Gi", memory_limit="4Gi", disk_gigabytes=10)
"""Settings, plans, indexes, deployments."""
DECODING = Resources(cpu_request="4", cpu_limit="8", memory_request="8Gi", memory_limit="32Gi", disk_gigabytes=60)
"""A worker process per core of the limit, each with the model's processor and a video."""
MODEL_DISK_GIGABYTES = 100
"""Of the steps that load the model: its weights, prepared clips, checkpoints. As in the TrainingRuntime."""


def place(
    task: PipelineTask,
    resources: Resources,
    *,
    shm: str | None = None,
    retries: int = 0,
    cached: bool = False,
    reads_base: bool = False,
) -> PipelineTask:
    """Gives a task its resources, secrets and the cluster's environment.

    `shm` is the size of a /dev/shm in memory, which is part of its limit. `cached` only where the task's parameters
    name all that its result depends on. `reads_base` is for tasks that read a part of the base model.
    """
    _register(task, (resources.cpu_limit, resources.memory_limit))
    task.set_cpu_request(resources.cpu_request).set_cpu_limit(resources.cpu_limit)
    task.set_memory_request(resources.memory_request).set_memory_limit(resources.memory_limit)
    task.set_caching_options(cached)
    _add_secrets(task)
    _add_disk(task, resources.disk_gigabytes)
    environment = str(network.FOLDER / network.ENVIRONMENT)
    kubernetes.use_config_map_as_volume(task, network.ENVIRONMENT, mount_path=environment, optional=True)
    if reads_base and (claim := os.environ.get(MODELS_VARIABLE)):
        kubernetes.mount_pvc(task, pvc_name=claim, mount_path=MODELS_PATH)
    if shm:
        kubernetes.empty_dir_mount(task, volume_name=_SHM, mount_path=_SHM_PATH, medium="Memory", size_limit=shm)
    if retries:
        task.set_retry(retries, backoff_duration="30s", backoff_factor=2.0, backoff_max_duration="600s")
    return task


def place_on_accelerators(
    task: PipelineTask,
    *,
    accelerator_type: Any,
    accelerators: Any,
    cpu: Any,
    memory: Any,
    node_selector: Any,
    tolerations: Any,
    retries: int,
) -> PipelineTask:
    """Gives a task what parameters or outputs of another task say when the pipeline runs.

    `accelerators` must be text: KFP reads a number there as none.
    """
    resources = Resources(cpu, cpu, memory, memory, disk_gigabytes=MODEL_DISK_GIGABYTES)
    place(task, resources, shm="8Gi", retries=retries, reads_base=True)
    _register(task, (accelerator_type, accelerators))
    task.set_accelerator_type(accelerator_type).set_accelerator_limit(accelerators)
    kubernetes.add_node_selector_json(task, node_selector)
    kubernetes.add_toleration_json(task, tolerations)
    return task


def _register(task: PipelineTask, values: Sequence[Any]) -> None:
    """Makes parameters and outputs known as the task's inputs: KFP's compiler misses those of an outer group."""
    task.register_pipeline_channels([value for value in values if isinstance(value, PipelineChannel)])


def _add_disk(task: PipelineTask, gigabytes: int) -> None:
    """A /tmp of so many Gi, and a download cache below that; what a container asks of the node's disk itself, Kubeflow
    Pipelines has no field for (`manifests/disk` has)."""
    kubernetes.empty_dir_mount(task, _SCRATCH, mount_path=_SCRATCH_PATH, size_limit=f"{gigabytes}Gi")
    task.set_env_variable(storage.POD_LIMIT_VARIABLE, f"{int(_SHARE_OF_CACHE * gigabytes)}GiB")


def _add_secrets(task: PipelineTask) -> None:
    for secret, keys in SECRETS.items():
        kubernetes.use_secret_as_env(task, secret, {key: key for key in keys}, optional=True)
