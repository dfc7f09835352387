"""Runs a graph in ONNX Runtime or in OpenVINO."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ivcp.models.graphs.inputs import graph_inputs
from ivcp.records.graph import GraphInfo, Runtime

Run = Callable[[Mapping[str, Tensor]], Tensor]
"""From a graph's inputs by name to its logits, (batch, outputs)."""


class RuntimeMissingError(ImportError):
    """A package that is not installed; the message says how to get it."""


class Graph:
    """The graph of a model directory, open: from a batch to logits, from any thread."""

    def __init__(self, directory: Path, info: GraphInfo, *, tower: nn.Module) -> None:
        """`tower` is the model's vision tower, perhaps without weights: only its configuration is read.

        Raises:
            RuntimeMissingError: its runtime is not installed.
        """
        self.info = info
        self._run, self._tower = open_graph(directory / info.file, info.runtime), tower

    @property
    def precision(self) -> str:
        """What it computes in, in a few words."""
        return f"float32 in {self.info.runtime}" + (f", {self.info.bits}-bit weights" if self.info.bits else "")

    def logits(self, batch: Mapping[str, Any]) -> Tensor:
        """The logits, (clips, outputs), of a batch as `BySize` makes it.

        Raises:
            GraphInputError: a clip has frames of several sizes.
        """
        parts = [self._run(graph_inputs(part, self._tower)) for part in batch["parts"]]
        order = torch.tensor([row for rows in batch["rows"] for row in rows])
        return torch.cat(parts)[order.argsort()]


def check_installed(*packages: str) -> None:
    """Checks that packages are there, without importing them.

    Raises:
        RuntimeMissingError: names those that are not.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise RuntimeMissingError(
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed: pip install 'ivcp[graphs]', "
            "or build the image with it (BUILD_OPTIONS='--build-arg EXTRAS=smolvlm,graphs')"
        )


def open_graph(path: Path, runtime: Runtime) -> Run:
    """Opens a graph on the CPU, in float32 and with as many threads as PyTorch has here.

    Raises:
        RuntimeMissingError: the runtime is not installed.
    """
    check_installed(runtime)
    return _in_openvino(path) if runtime == "openvino" else _in_onnxruntime(path)


def _in_onnxruntime(path: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]

    def run(inputs: Mapping[str, Tensor]) -> Tensor:
        (logits,) = session.run(None, {name: inputs[name].numpy() for name in names})
        return torch.from_numpy(logits)

    return run


def _in_openvino(path: Path) -> Run:
    import openvino

    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": "f32",  # its default takes bfloat16 where the processor has it, and says nothing
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    names = [each.get_any_name() for each in compiled.inputs]
    one_at_a_time = threading.Lock()  # the compiled model keeps one request with its memory

    def run(inputs: Mapping[str, Tensor]) -> Tensor:
        with one_at_a_time:
            logits = compiled({name: inputs[name].numpy() for name in names})[0]
            return torch.from_numpy(logits.copy())

    return run
