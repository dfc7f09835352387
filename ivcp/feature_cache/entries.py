"""The folder of cache entries: how an entry is named, and how all processes fill it together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
import transformers
from torch import Tensor

from ivcp import storage
from ivcp.distributed.disks import find_disk
from ivcp.distributed.processes import all_processes, gather_values
from ivcp.distributed.rank import rank, world_size
from ivcp.feature_cache.encoder import UnlikeLiveError
from ivcp.feature_cache.store import CacheEntry, StoreError, make_room, pack
from ivcp.inference.compute import Compute
from ivcp.models.processor import Processor
from ivcp.models.vision.features import InseparableFeaturesError
from ivcp.records import PreparedIndex
from ivcp.settings import RunConfig

_VERSION = 1
"""Raised when the same inputs give other stored tensors than before."""
_FOLDER = "vision_features"
_CHANGES_NOTHING = {"_name_or_path", "transformers_version", "use_cache"}

Encode = Callable[[Sequence[int]], Iterator[Mapping[str, Tensor]]]
"""What is kept of the clips at some positions, in their order."""


@dataclass(frozen=True)
class FeatureCache:
    """A folder of cache entries with a limit, which all processes of a run fill together."""

    folder: Path
    max_bytes: int

    @classmethod
    def of(cls, config: RunConfig, index: PreparedIndex) -> Self:
        """`vision_cache_dir`, else a folder beside the prepared clips, or in the download cache for clips on S3."""
        given, root = config.speed.vision_cache_dir, index.root_uri
        parent = storage.default_cache_dir() if storage.is_s3(root) else Path(root).parent
        folder = Path(given) if given is not None else parent / _FOLDER
        return cls(folder, int(config.speed.vision_cache_max_gigabytes * 1e9))

    def complete(self, entry: CacheEntry, encode: Encode) -> int:
        """Computes the missing parts of an entry below this folder, and holds it; the number of clips computed here.

        Raises, in all processes where it happens in one:
            StoreError: the entry cannot be written, or does not fit.
            InseparableFeaturesError, UnlikeLiveError: `encode` raised it.
        """
        problem: Exception | None = None
        try:
            entry.hold()
        except StoreError as error:
            problem = error
        self._agree(problem, entry)
        parts, num_computed = _own_share(entry), 0
        try:
            num_computed = self._write(entry, parts, encode)
        except (StoreError, InseparableFeaturesError, UnlikeLiveError) as error:
            problem = error
        self._agree(problem, entry)
        return num_computed

    def _agree(self, problem: Exception | None, entry: CacheEntry) -> None:
        """Gives the entry up in all processes where one of them has a problem."""
        if not all_processes(problem is None):
            entry.release()
            raise problem or StoreError("another process could not keep them; its log says why")

    def _write(self, entry: CacheEntry, parts: Sequence[int], encode: Encode) -> int:
        if not parts:
            return 0
        positions = [position for part in parts for position in entry.clips_of(part)]
        encoded = encode(positions)
        for number, part in enumerate(parts):
            clips = [next(encoded) for _ in entry.clips_of(part)]
            if number == 0:  # the others are about as large
                num_bytes = sum(tensor.nbytes for tensor in pack(clips).values()) * len(parts) * world_size()
                make_room(self.folder, num_bytes, max_bytes=self.max_bytes, keep=[entry.folder])
            entry.write(part, clips)
        return len(positions)


def _own_share(entry: CacheEntry) -> Sequence[int]:
    """The missing parts that this process computes: those that see its folder share them, as all of them see it now.

    Each would see another number as soon as one has begun to write.
    """
    number = find_disk(entry.folder).number
    seen = gather_values((number, entry.missing()))
    peers = [process for process, (disk, _) in enumerate(seen) if disk == number]
    missing = seen[peers[0]][1]
    return missing[peers.index(rank()) :: len(peers)]


def fingerprint(
    model: Any,
    tensors: Iterable[tuple[str, Tensor]],
    *,
    index: PreparedIndex,
    processor: Processor,
    compute: Compute,
    more: Mapping[str, Any] | None = None,
) -> str:
    """Hash of all that outputs of a transformers model for prepared clips depend on.

    That is the content of `tensors`, the weights that take part, the model's configuration and attention, the clips,
    how their pixels are normalised, precision, device and library versions, and `more`, JSON types.
    """
    config = model.config
    described = {
        "version": _VERSION,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "clips": index.fingerprint,
        "pixels": None
        if processor.reads_text_only
        else json.loads(processor.processor.video_processor.to_json_string()),
        "model": {key: value for key, value in config.to_dict().items() if key not in _CHANGES_NOTHING},
        "attention": [part._attn_implementation for part in (config, *_sub_configs(config))],
        "device": compute.device.type,
        "autocast": str(compute.autocast_dtype),
        **(more or {}),
    }
    digest = hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode())
    for name, tensor in sorted(tensors, key=lambda item: item[0]):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().flatten().contiguous().view(torch.uint8).cpu().numpy().data)
    return digest.hexdigest()


def _sub_configs(config: Any) -> Iterator[Any]:
    found = (getattr(config, name) for name in sorted(config.sub_configs))
    return (sub_config for sub_config in found if sub_config is not None)
