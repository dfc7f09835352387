"""The TrainJob object: what it is called and what stands in it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from ivcp.kubernetes import images
from ivcp.records import PreparedIndex
from ivcp.settings import RunConfig
from ivcp.training.checkpoints.mirror import run_key

GROUP, VERSION, PLURAL = "trainer.kubeflow.org", "v1alpha1", "trainjobs"
RESTART_ANNOTATION = "ivcp.dev/restart"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
CONTAINER = "node"
_TRACKING = ("MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI", "MLFLOW_WORKSPACE", "MLFLOW_TRACKING_AUTH")
_LONGEST_RUN_NAME = 20
"""Pods are called `<job>-node-0-<node>-<suffix>`, in at most 63 characters."""


def job_name(config: RunConfig, index: PreparedIndex, run_id: str) -> str:
    """The name of a run's job, the same for every attempt of the same step: at most 38 characters of a DNS label."""
    words = re.sub(r"[^a-z0-9]+", "-", (config.train.run_name or "").lower()).strip("-")
    return "-".join(filter(None, ["ivcp", words[:_LONGEST_RUN_NAME].strip("-"), run_key(config, index, run_id)]))


def train_job(
    config: RunConfig, name: str, *, folder_uri: str, run_id: str, restart: int, runtime: Mapping[str, Any]
) -> dict[str, Any]:
    """The TrainJob: nodes, processes, image and command; all else stands in its TrainingRuntime, `runtime`.

    The field with which a TrainJob overrides its runtime has another name in each minor release of Kubeflow Trainer.
    """
    launch = config.launch
    labels = {
        "app.kubernetes.io/name": "ivcp-training",
        "app.kubernetes.io/component": "training",
        "app.kubernetes.io/part-of": "ivcp",
        "app.kubernetes.io/managed-by": "ivcp",
    }
    trainer: dict[str, Any] = {
        "command": ["python", "-m", "ivcp.launch.node", folder_uri],
        "numNodes": launch.train_nodes,
        "numProcPerNode": launch.train_processes_per_node,
    }
    if image := os.environ.get(images.VARIABLES["training"]):  # else the TrainingRuntime's
        trainer["image"] = image
    if env := _tracking_variables(config):
        trainer["env"] = env
    if resources := _resources(runtime, launch.train_processes_per_node):
        trainer["resourcesPerNode"] = resources
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "TrainJob",
        "metadata": {
            "name": name,
            "namespace": launch.train_namespace,
            "labels": labels | ({QUEUE_LABEL: launch.train_queue} if launch.train_queue else {}),
            "annotations": {"ivcp.dev/run-id": run_id, "ivcp.dev/folder": folder_uri, RESTART_ANNOTATION: str(restart)},
        },
        "spec": {
            "runtimeRef": {"apiGroup": GROUP, "kind": "TrainingRuntime", "name": launch.train_runtime},
            "trainer": trainer,
        },
    }


def _tracking_variables(config: RunConfig) -> list[dict[str, str]]:
    """What makes the pods log to this step's MLflow run, where its store is a server; a file of this machine is not."""
    store = config.tracking.mlflow_tracking_uri or os.environ.get("MLFLOW_TRACKING_URI", "")
    if not store.startswith(("http://", "https://")):
        return []
    return [{"name": name, "value": os.environ[name]} for name in _TRACKING if os.environ.get(name)]


def _resources(runtime: Mapping[str, Any], processes: int) -> dict[str, Any] | None:
    """The runtime's resources of a node with one device for each process; null where it has no devices, or as many.

    What a TrainJob says replaces all of them, so that they are repeated.
    """
    containers = [
        container
        for job in runtime["spec"]["template"]["spec"]["replicatedJobs"]
        for container in job["template"]["spec"]["template"]["spec"]["containers"]
        if container["name"] == CONTAINER
    ]
    resources: dict[str, dict[str, Any]] = containers[0].get("resources", {}) if containers else {}
    changed = {
        kind: {key: str(processes) if "/" in key else value for key, value in amounts.items()}
        for kind, amounts in resources.items()
        if kind in ("limits", "requests")
    }
    same = {kind: {key: str(value) for key, value in amounts.items()} for kind, amounts in resources.items()}
    return (
        None if changed == same or not any("/" in key for amounts in changed.values() for key in amounts) else changed
    )
