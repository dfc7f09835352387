"""Traces a classifier into one ONNX graph for batches, frame sizes, frame counts and prompts of any size."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ivcp.models.backbone import BackboneModule, language_model_of
from ivcp.models.graphs.inputs import SLICES, TOWER_PREFIX, WINDOWS, graph_inputs
from ivcp.models.positions import ROPE_POSITIONS
from ivcp.models.vision.attention import IMPLEMENTATION

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
"""Model types whose graphs answer as they do."""
_NO_CHECKS = "TRANSFORMERS_DISABLE_TORCH_CHECK"
"""Checks of values, such as the number of vision tokens, that a graph cannot hold."""


class GraphError(ValueError):
    """A model that cannot be traced; the message says why and what to do."""


def check_traceable(module: BackboneModule) -> None:
    """Checks that a graph of a module's model has been compared: others may trace, and answer otherwise.

    Raises:
        GraphError: it has not, or its vision tower attends in another way.
    """
    model = language_model_of(module.backbone)
    if (family := model.config.model_type) not in FAMILIES:
        raise GraphError(
            f"a {family} model has no graph for ONNX Runtime or OpenVINO here, only {', '.join(FAMILIES)} models have: "
            "leave export_runtime out, and PyTorch serves it"
        )
    attention = model.get_encoder(modality="video").config._attn_implementation
    if attention != IMPLEMENTATION:
        raise GraphError(f"a graph is traced with flash_attn: auto, this model was loaded with {attention} attention")


def write_graph(module: BackboneModule, batch: Mapping[str, Any], path: Path) -> None:
    """Traces a module in float32 with `batch`, as its collator makes it, and writes the graph and its weights.

    `batch` should have two clips or more of several slices each: a dimension of one would be taken for fixed.

    Raises:
        GraphError: the module cannot be traced.
        ImportError: a package is missing (`pip install 'ivcp[graphs]'`).
    """
    check_traceable(module)
    tower = language_model_of(module.backbone).get_encoder(modality="video")
    inputs = graph_inputs(batch, tower)
    sizes = tuple(_any_size(name, value) for name, value in inputs.items())
    with _traceable(), torch.no_grad():
        program = torch.export.export(_ByName(module, tuple(inputs)), tuple(inputs.values()), dynamic_shapes=(sizes,))
    _check_sizes(program, inputs, sizes)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)  # torch 2.13, of itself
        exported = torch.onnx.export(program, input_names=list(inputs), output_names=["logits"], verbose=False)
    assert exported is not None
    exported.save(path, external_data=True)


def _check_sizes(program: Any, inputs: Mapping[str, Tensor], sizes: Sequence[Mapping[int, Any]]) -> None:
    """`len(tensor)` in a model makes a number of a size, without a word."""
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    for place, name, asked in zip(program.graph_signature.user_inputs, inputs, sizes, strict=True):
        fixed = [axis for axis in asked if isinstance(nodes[place].meta["val"].shape[axis], int)]
        if fixed:
            raise GraphError(
                f"dimension {fixed[0]} of {name} came out fixed at {inputs[name].shape[fixed[0]]}: the model's code "
                "makes a number of it; leave export_runtime out and report the model"
            )


class _ByName(nn.Module):
    """Takes a graph's inputs by their places."""

    def __init__(self, module: BackboneModule, names: tuple[str, ...]) -> None:
        super().__init__()
        self.module, self.names = module, names

    def forward(self, *values: Tensor) -> Tensor:
        """Logits, (batch, outputs)."""
        inputs = dict(zip(self.names, values, strict=True))
        slices = inputs.pop(SLICES)
        tower = language_model_of(self.module.backbone).get_encoder(modality="video")
        known = {name.removeprefix(TOWER_PREFIX): inputs.pop(name) for name in self.names if TOWER_PREFIX in name}
        bounds = {"cu_seqlens": torch.zeros(2, dtype=torch.int32), "max_seqlen": 1, "slice_length": slices.shape[1]}
        if WINDOWS in known:
            bounds["max_window_seqlen"] = 1
        seen = tower(slices.flatten(0, 1), None, **bounds, **known)
        features = {"video.pooler_output.0": seen.pooler_output}
        for number, layer in enumerate(getattr(seen, "deepstack_features", None) or ()):
            features[f"video.deepstack_features.{number}.0"] = layer
        logits: Tensor = self.module(**inputs, vision_features=features).logits
        return logits


@contextlib.contextmanager
def _traceable() -> Iterator[None]:
    checks = os.environ.get(_NO_CHECKS)
    os.environ[_NO_CHECKS] = "1"
    try:
        with sdpa_kernel(SDPBackend.MATH):  # the others look at the sizes
            yield
    finally:
        if checks is None:
            del os.environ[_NO_CHECKS]
        else:
            os.environ[_NO_CHECKS] = checks


def _any_size(name: str, value: Tensor) -> dict[int, Any]:
    """The dimensions that may have any size: all but the axes of positions and the values of a patch."""
    per_patch = name.startswith(TOWER_PREFIX) and name != TOWER_PREFIX + WINDOWS
    fixed = {SLICES: {2}, ROPE_POSITIONS: {1}}.get(name, {1} if per_patch else set())
    return {axis: torch.export.Dim.AUTO for axis in range(value.ndim) if axis not in fixed}
