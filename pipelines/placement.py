"""What each step of the pipeline gets on a cluster: resources, memory to share, secrets, retries, caching.

KFP's local runner ignores all of it but retries, which `ivcp.pipeline_runs.local` leaves out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kfp import kubernetes
from kfp.dsl import PipelineTask
from kfp.dsl.pipeline_channel import PipelineChannel

S3_SECRET, MLFLOW_SECRET, HUB_SECRET = "ivcp-s3", "ivcp-mlflow", "ivcp-hub"
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
}
"""Kubernetes secrets → their keys, which become environment variables. Those that a cluster lacks are left out."""

_SHM, _SHM_PATH = "shm", "/dev/shm"


@dataclass(frozen=True)
class Resources:
    """What a step asks for and may not exceed, in Kubernetes' words."""

    cpu_request: str
    cpu_limit: str
    memory_request: str
    memory_limit: str


LIGHT = Resources(cpu_request="250m", cpu_limit="2", memory_request="1Gi", memory_limit="4Gi")
"""Settings, plans, indexes, deployments."""
DECODING = Resources(cpu_request="4", cpu_limit="8", memory_request="8Gi", memory_limit="32Gi")
"""A worker process per core of the limit, each with the model's processor and a video."""


def place(
    task: PipelineTask,
    resources: Resources,
    *,
    shm: str | None = None,
    retries: int = 0,
    cached: bool = False,
) -> PipelineTask:
    """Gives a task its resources and secrets; `shm` is the size of a /dev/shm in memory, which is part of its limit.

    `cached` only where the task's parameters name all that its result depends on.
    """
    _register(task, (resources.cpu_limit, resources.memory_limit))
    task.set_cpu_request(resources.cpu_request).set_cpu_limit(resources.cpu_limit)
    task.set_memory_request(resources.memory_request).set_memory_limit(resources.memory_limit)
    task.set_caching_options(cached)
    _add_secrets(task)
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
    resources = Resources(cpu_request=cpu, cpu_limit=cpu, memory_request=memory, memory_limit=memory)
    place(task, resources, shm="8Gi", retries=retries)
    _register(task, (accelerator_type, accelerators))
    task.set_accelerator_type(accelerator_type).set_accelerator_limit(accelerators)
    kubernetes.add_node_selector_json(task, node_selector)
    kubernetes.add_toleration_json(task, tolerations)
    return task


def _register(task: PipelineTask, values: Sequence[Any]) -> None:
    """Makes parameters and outputs known as the task's inputs: KFP's compiler misses those of an outer group."""
    task.register_pipeline_channels([value for value in values if isinstance(value, PipelineChannel)])


def _add_secrets(task: PipelineTask) -> None:
    for secret, keys in SECRETS.items():
        kubernetes.use_secret_as_env(task, secret, {key: key for key in keys}, optional=True)
