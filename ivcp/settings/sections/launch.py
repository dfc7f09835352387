"""Settings of where training runs, and in how many processes."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from ivcp.settings.places import Place
from ivcp.settings.sections.section import Section


class LaunchConfig(Section):
    """Where training runs: in the step itself, or as a job of several nodes that the step starts and follows."""

    train_launcher: Literal["inline", "trainjob"] = "inline"
    """Train in the step itself (`inline`), or in a Kubeflow TrainJob that the step starts and follows (`trainjob`)."""
    train_nodes: int = Field(1, ge=1)
    """Nodes of a `trainjob`; every one is a pod."""
    train_processes_per_node: int = Field(1, ge=1)
    """Training processes on each node, one per GPU; torchrun starts them."""
    train_queue: str | None = None
    """Kueue's local queue that a `trainjob` waits in; null starts it at once."""
    train_namespace: str = "ivcp"
    """Kubernetes namespace of a `trainjob` and its TrainingRuntime."""
    train_runtime: str = "ivcp-torch"
    """TrainingRuntime of a `trainjob`: image, volumes, secrets and tolerations of its pods."""
    train_max_restarts: int = Field(3, ge=0)
    """How often a `trainjob` that failed is started again, from its last checkpoint; wrong settings never are."""
    train_start_seconds: float = Field(1800.0, gt=0)
    """How long the nodes and processes of a training wait for each other at its start."""
    checkpoints_uri: Place | None = None
    """s3:// prefix or shared folder that checkpoints are copied to as they are written, and resumed from on an empty
    disk; each run has a folder in it. A `trainjob` needs it."""

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Self:
        if self.train_launcher == "trainjob" and self.checkpoints_uri is None:
            raise ValueError(
                "train_launcher = trainjob needs checkpoints_uri: an s3:// prefix or a folder that this step and the "
                "job's pods reach, for settings, checkpoints and the result"
            )
        if self.train_launcher == "inline" and self.train_nodes > 1:
            raise ValueError(
                f"train_nodes = {self.train_nodes} with train_launcher: inline, which trains on one node; "
                "set train_launcher: trainjob"
            )
        return self

    @property
    def num_processes(self) -> int:
        """Processes of the training, on all nodes."""
        return self.train_nodes * self.train_processes_per_node
