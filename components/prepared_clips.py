"""The prepared clips of one split as a torch data set."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch.utils.data import Dataset

from components.artifacts import PreparedIndex, Split
from components.clip_processor import PreparedClip
from components.shards import find_shard, open_shard, sampled_candidate


class PreparedClips(Dataset[PreparedClip]):
    """Prepared clips in the order of the annotations, from memory-mapped shards.

    Shards are opened at the first read of each process, so that a copy for a DataLoader worker is a few paths.
    """

    def __init__(
        self,
        index: PreparedIndex,
        split: Split,
        *,
        verify_checksums: bool = False,
        keep_candidates: bool = False,
    ) -> None:
        """Finds the shards, downloads those of an s3:// index, and checks their sizes.

        With `keep_candidates`, clips keep all frames that are stored around each sampled moment.

        Raises:
            ShardError: a shard is missing, has another size, or, with `verify_checksums`, another content.
        """
        self.split = split
        shards = [shard for shard in index.shards if shard.split == split]
        self._paths = [find_shard(index.root_uri, shard, verify_checksum=verify_checksums) for shard in shards]
        self._starts = np.cumsum([0, *(shard.num_clips for shard in shards)])
        self._keep_candidates = keep_candidates
        self._tables: dict[int, pa.Table] = {}

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> PreparedClip:
        if not -len(self) <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)} in split {self.split}")
        index %= len(self)
        shard = int(np.searchsorted(self._starts, index, side="right")) - 1
        return _read_clip(self._table(shard), index - int(self._starts[shard]), self._keep_candidates)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_tables": {}}

    def _table(self, shard: int) -> pa.Table:
        if shard not in self._tables:
            self._tables[shard] = open_shard(self._paths[shard])
        return self._tables[shard]


def _read_clip(table: pa.Table, row: int, keep_candidates: bool) -> PreparedClip:
    frames = np.frombuffer(table["frames"][row].as_buffer(), dtype=np.uint8).reshape(table["shape"][row].as_py())
    candidates = table["frame_candidates"][row].as_py()
    if candidates > 1 and not keep_candidates:
        frames, candidates = frames[sampled_candidate(candidates) :: candidates], 1
    return PreparedClip(
        clip_id=table["clip_id"][row].as_py(),
        video=table["video"][row].as_py(),
        label=table["label"][row].as_py(),
        frames=frames.copy(),  # torch refuses read-only memory
        input_ids=_integers(table["input_ids"][row]),
        mm_token_type_ids=_integers(table["mm_token_type_ids"][row]),
        seconds_per_frame=table["seconds_per_frame"][row].as_py(),
        frame_candidates=candidates,
        answer_ids=_integers(table["answer_ids"][row]),
        answer_start=table["answer_start"][row].as_py(),
    )


def _integers(values: Any) -> NDArray[np.int64]:
    numbers: NDArray[np.int64] = values.values.to_numpy().copy()
    return numbers
