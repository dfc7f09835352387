"""What tells the weights of one base model from those of another of the same shape: an adapter fits only its own.

A sample of every tensor is hashed: some 8,000 values, spread over it, and all of a smaller one. That takes milliseconds
for each gigabyte, where a hash of everything takes two seconds, on each start of a predictor. Training changes a tensor
that it opens in almost all places, so that a sample of each is enough.

The same values have the same fingerprint wherever the folder is, however they are divided into files (safetensors or
PyTorch's own), in whichever of the precisions that hold them exactly, under whichever names a version of transformers
gives them, and whether tied weights are written once or twice.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from ivcp.models.base_files import weight_files
from ivcp.models.source import local_model
from ivcp.records import Record
from ivcp.settings import ModelConfig

log = logging.getLogger(__name__)

_BLOCKS, _VALUES_PER_BLOCK = 16, 512


class BaseWeights(Record):
    """The base model that something was trained on."""

    name: str
    """As `model_name_or_path` had it."""
    fingerprint: str
    """Of its weights."""


def base_weights(model: ModelConfig) -> BaseWeights:
    """Those of a base model, which was loaded before: a model of the hub is in the cache."""
    name = model.required_name
    return BaseWeights(name=name, fingerprint=weights_fingerprint(_folder(model)))


def weights_fingerprint(folder: Path) -> str:
    """A hash of the weights in a model's folder."""
    states = [(file, file.stat()) for file in weight_files(folder)]
    return _fingerprint(tuple((file, state.st_size, state.st_mtime_ns) for file, state in states))


@functools.lru_cache(maxsize=8)
def _fingerprint(files: tuple[tuple[Path, int, int], ...]) -> str:
    """Of the weights in files, each with its size and the time of its last change."""
    began = time.monotonic()
    # A set: weights that are tied may be written under each of their names, or under one.
    tensors = {_hash(tensor) for file, _, _ in files for tensor in _tensors(file)}
    log.debug("fingerprint of %d tensors: %.2f s", len(tensors), time.monotonic() - began)
    return hashlib.sha256(b"".join(sorted(tensors))).hexdigest()[:32]


def _tensors(file: Path) -> Iterator[Tensor]:
    """The tensors of a file of weights; both kinds of files give them unread, so that only what is looked at is."""
    if file.suffix == ".safetensors":
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 (no mapping)
                yield opened.get_tensor(name)
        return
    yield from torch.load(file, map_location="cpu", mmap=True, weights_only=True).values()


def _hash(tensor: Tensor) -> bytes:
    sample = _sample(tensor.reshape(-1))
    exact = sample.double() if sample.is_floating_point() else sample.long()
    described = f"{tuple(tensor.shape)} {exact.dtype}"
    return hashlib.sha256(described.encode() + exact.contiguous().numpy().tobytes()).digest()


def _sample(values: Tensor) -> Tensor:
    """Blocks spread evenly from the first to the last value; all of them where there are few."""
    if values.numel() <= _BLOCKS * _VALUES_PER_BLOCK:
        return values
    last = values.numel() - _VALUES_PER_BLOCK
    starts = [last * block // (_BLOCKS - 1) for block in range(_BLOCKS)]
    return torch.cat([values[start : start + _VALUES_PER_BLOCK] for start in starts])


def _folder(model: ModelConfig) -> Path:
    name = local_model(model.required_name)
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download

    return Path(
        snapshot_download(name, revision=model.model_revision, cache_dir=model.cache_dir, local_files_only=True)
    )
