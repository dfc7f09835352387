"""How much memory and disk a predictor of an exported model takes: a rule on the sizes of its files.

`python benchmarks/predictor_memory.py` measures it on CPU: weights of 3, 240 and 956 MiB in float32 came to 1228, 1476
and 2178 MiB of all processes together. That is the weights once, as they lie in their files (export writes them in the
precision that they are loaded in), and 1.2 GiB of everything else. Activations, and a video that takes all that a
decoding process may have, come on top.
"""

from __future__ import annotations

import math
from pathlib import Path

from ivcp.records import Record
from ivcp.settings import ServingConfig

_GIB = 2**30
_ACTIVATIONS = 1.25
"""Of the weights: longest clips of the larger models."""
_COPIES = {".safetensors": 1, ".onnx": 2, ".data": 2, ".bin": 2}
"""Of files of weights in memory: OpenVINO maps a graph's, and lays them out anew for the processor (723 MiB for 360;
ONNX Runtime takes 380)."""
_PROCESSES, _DECODERS = 2, 8
"""GiB of the processes at rest, rounded up, and the most that videos may take beside them: 2 GB in each decoding
process, of which there is one for each of the template's four cores."""
_UPLOADS, _LOGS = 6, 2
"""GiB on disk: uploads under way, twice, with caches; the container's log."""
_STEP = 1
"""GiB of the step that starts a predictor beside it."""
_STEP_ALONE = 2
"""GiB of the step that deploys to a cluster: it loads no model, and has 0.5 GiB of libraries."""


class PredictorNeeds(Record):
    """In Kubernetes' words."""

    memory_request: str
    memory_limit: str
    disk: str
    """Limit of the volume that the model is downloaded to."""
    disk_request: str
    disk_limit: str


def predictor_needs(model_dir: Path, serving: ServingConfig) -> PredictorNeeds:
    """What a predictor of the model in `model_dir` asks for; `serve_memory` overrules the memory."""
    weights = _weights(model_dir)
    files = sum(path.stat().st_size for path in model_dir.rglob("*") if path.is_file()) / _GIB
    volume = files + _UPLOADS
    return PredictorNeeds(
        memory_request=serving.serve_memory or _quantity(_ACTIVATIONS * weights + _PROCESSES),
        memory_limit=serving.serve_memory or _quantity(_ACTIVATIONS * weights + _PROCESSES + _DECODERS),
        disk=_quantity(volume),
        disk_request=_quantity(files + _LOGS),
        disk_limit=_quantity(math.ceil(volume) + _LOGS),
    )


def step_memory(model_dir: Path, serving: ServingConfig) -> str:
    """The memory of the step that deploys the model, as Kubernetes writes it; it loads what it starts beside itself."""
    if serving.serve_target == "cluster":
        return f"{_STEP_ALONE}Gi"
    weights = _weights(model_dir)
    return _quantity(_ACTIVATIONS * weights + _PROCESSES + _DECODERS / 2 + _STEP)


def _weights(model_dir: Path) -> float:
    """GiB of memory for them. Folders in a model directory hold the same model in other forms."""
    return sum(_COPIES.get(path.suffix, 0) * path.stat().st_size for path in model_dir.iterdir()) / _GIB


def _quantity(gibibytes: float) -> str:
    return f"{math.ceil(gibibytes)}Gi"
