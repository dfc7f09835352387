"""The part of the schema that is about the cluster: where the steps run, on what, and what they write to.

`ivcp.settings` puts the sections of the whole schema together.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer

from ivcp.settings.places import Place
from ivcp.settings.sections.section import Section

QUANTITY = r"^\d+(\.\d+)?(m|[kMGT]i?|Ki)?$"
"""Kubernetes' way to write amounts of CPU and memory."""


class Toleration(Section):
    """A taint of nodes that a step's pod may run on in spite of; spelled as in Kubernetes."""

    key: str | None = None
    operator: Literal["Exists", "Equal"] | None = None
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    tolerationSeconds: int | None = None  # noqa: N815 (Kubernetes' spelling)

    @model_serializer(mode="wrap")
    def _without_nulls(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if value is not None}


_GPU_TAINT = Toleration(key="nvidia.com/gpu", operator="Exists", effect="NoSchedule")


class ClusterConfig(Section):
    """Where the pipeline's steps run and write on a cluster; on one machine only `shards_uri` has a meaning."""

    shards_uri: Place | None = None
    """Folder or s3:// prefix that the prepared clips are written to. Null is in the runs folder of this machine, and
    on a cluster below the pipeline root; every step must reach it."""
    train_accelerator_type: str = "nvidia.com/gpu"
    """Kubernetes' name of the accelerator that training and evaluation ask for."""
    train_accelerator_count: int = Field(1, ge=0)
    """Accelerators of the training step, as many as `train_processes_per_node`; evaluation takes one of them. 0 trains
    on CPUs. With `train_launcher: trainjob` the training step itself holds none."""
    train_cpu: str = Field("4", pattern=QUANTITY)
    """CPUs of the steps that load the model: training, evaluation and export."""
    train_memory: str = Field("32Gi", pattern=QUANTITY)
    """Memory of the same steps; /dev/shm is part of it."""
    train_node_selector: dict[str, str] = Field(default_factory=dict)
    """Labels of the nodes that training and evaluation run on, e.g.
    {"cloud.google.com/gke-accelerator": "nvidia-l4"}."""
    train_tolerations: tuple[Toleration, ...] = (_GPU_TAINT,)
    """Taints of these nodes that are tolerated, as Kubernetes spells them."""

    @field_validator("train_tolerations", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return (value,) if isinstance(value, dict) else (value or ())
