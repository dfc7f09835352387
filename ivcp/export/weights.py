"""What tells the weights of one training from those of another."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path


def weights_hash(directory: Path, files: Sequence[str]) -> str:
    """Of the tensors in a stage's safetensors files: their bytes differ, as the order of their metadata is chance.

    Of all weights, where the stage adds none.
    """
    import torch
    from safetensors.torch import load_file

    digest, own = hashlib.sha256(), [name for name in files if name.endswith(".safetensors")]
    for file in sorted(own or (path.name for path in directory.glob("*.safetensors"))):
        for name, tensor in sorted(load_file(directory / file).items()):
            digest.update(name.encode() + tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
