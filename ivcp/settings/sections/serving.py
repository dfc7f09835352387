"""Settings of the predictor."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ivcp.settings.sections.cluster import QUANTITY
from ivcp.settings.sections.section import Section

_DNS_LABEL = r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$"
_SERVE_NAME = r"^[a-z]([-a-z0-9]{0,51}[a-z0-9])?$"
"""A DNS label with room for `-candidate`."""


class ServingConfig(Section):
    """The predictor."""

    serve_target: Literal["local", "cluster"] | None = None
    """Where the serving step deploys: a process beside it that it checks (`local`), or the Kubernetes cluster. Null is
    where the run is: `cluster` in a pipeline on a cluster, `local` on this machine."""
    serve_namespace: str = Field("ivcp", pattern=_DNS_LABEL)
    """Namespace of the predictor on a cluster."""
    serve_name: str = Field("action-classifier", pattern=_SERVE_NAME)
    """Name of the predictor's Deployment and Service on a cluster. A new model is checked under this name and
    `-candidate` before it serves."""
    serve_image: str | None = None
    """The predictor's image on a cluster, such as one with CUDA; null is the image that the step itself runs in."""
    serve_memory: str | None = Field(None, pattern=QUANTITY)
    """Memory of each predictor on a cluster, requested and limited; null follows the size of the model's weights."""
    serve_url: str | None = None
    """Where the step reaches the predictor's Service on a cluster; null is its name in the cluster's DNS. From
    elsewhere, its path through `kubectl proxy`."""
    serve_candidate_url: str | None = None
    """Where the step reaches the Service of a new model that does not serve yet; null is `serve_url` with the name
    `<serve_name>-candidate` in it."""
    serve_take_over: bool = False
    """Overwrite fields that `kubectl edit` or another tool owns; without it such a field is an error."""
    served_prompt: str | None = None
    """What evaluation and the predictor ask about a video; `<video>` and the action token are added where it lacks
    them. Null is the model's own: the prompt that most training rows have. Training rows may ask anything."""
    serve_host: str = "127.0.0.1"
    """Address the predictor listens on."""
    serve_port: int = Field(0, ge=0, le=65535)
    """Port the predictor listens on; 0 takes a free one."""
    serve_timeout_seconds: float = Field(900.0, gt=0)
    """How long a deployment may take to become ready: a new node, the image and the model take minutes."""
    serve_graph: bool | None = None
    """Deploy the graph that export writes (`export_runtime`, `export_quantization_bit`) in place of the PyTorch model;
    it computes on CPUs only. Null does where export writes one."""
    serve_keep: bool = False
    """Leave the predictor running after the local deployment's smoke test."""

    @property
    def place(self) -> str:
        """Where a model is put into service, in a few words."""
        return "locally" if self.serve_target != "cluster" else f"in {self.serve_namespace}/{self.serve_name}"
