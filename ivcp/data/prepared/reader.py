"""The prepared clips of one split as a torch data set."""

from __future__ import annotations

from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch.utils.data import Dataset

from ivcp import storage
from ivcp.data.prepared.frame_encoding import decode_frames
from ivcp.data.prepared.shards import ShardReader, find_file, find_shard
from ivcp.data.prepared.table import ClipTable
from ivcp.models.processor import PreparedClip
from ivcp.records import PreparedIndex, ShardInfo, Split
from ivcp.video.sampling import sampled_candidate

_MOST_OPEN = 512
"""Shards that are open at once: each takes a file descriptor, of which a process has 1,024 by default."""
_NO_FRAMES = np.zeros((0, 0, 0, 3), dtype=np.uint8)


class PreparedClips(Dataset[PreparedClip]):
    """Prepared clips with those of one video side by side, from memory-mapped shards.

    Table and shards are opened at the first read of each process, so that a copy for a DataLoader worker is a few
    paths; shards of an s3:// index are downloaded one by one when their first clip is read.
    """

    def __init__(
        self,
        index: PreparedIndex,
        split: Split,
        *,
        verify_checksums: bool = False,
        keep_candidates: bool = False,
    ) -> None:
        """Finds the table and the local shards, and checks their sizes.

        With `keep_candidates`, clips keep all frames that are stored around each sampled moment.

        Raises:
            ShardError: a file is missing, has another size, or, with `verify_checksums`, another content.
        """
        self.split = split
        self._root_uri, self._verify = index.root_uri, verify_checksums
        self._infos, self._rows = _shards_of(index, split)
        self._table_path = find_file(
            index.root_uri, index.table.file, index.table.num_bytes, index.table.sha256 if verify_checksums else None
        )
        self._paths: dict[int, Path] = {}
        if not storage.is_s3(index.root_uri):
            self._paths = {number: self._find(number) for number in self._infos}
        self._keep_candidates = keep_candidates
        self._with_frames = True
        self._table: ClipTable | None = None
        self._shards: dict[int, ShardReader] = {}

    def __len__(self) -> int:
        return int(self._rows.stop - self._rows.start)

    def __getitem__(self, index: int) -> PreparedClip:
        if not -len(self) <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)} in split {self.split}")
        row = self._rows.start + index % len(self)
        shard, offset = (int(self._opened_table.column(name)[row]) for name in ("shard", "offset"))
        clip = self._shard(shard).read(offset)
        frames, candidates = _read_frames(clip, self._keep_candidates) if self._with_frames else (_NO_FRAMES, 1)
        return _read_clip(clip, frames, candidates)

    def without_frames(self) -> PreparedClips:
        """The same clips with no frames, (0, 0, 0, 3), whose bytes are then never read."""
        light = copy(self)
        light._with_frames = False
        return light

    def token_lengths(self, *, with_answers: bool = False) -> NDArray[np.int64]:
        """Tokens of each clip, (len(self),), up to the action token or up to the answer's end, from the table."""
        lengths = self._column("num_tokens")
        return lengths + self._column("num_answer_tokens") if with_answers else lengths

    def labels(self) -> NDArray[np.int64]:
        """The label of each clip, (len(self),), from the table."""
        return self._column("label")

    def _column(self, name: str) -> NDArray[np.int64]:
        return self._opened_table.column(name, self._rows).astype(np.int64)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_shards": {}, "_table": None}

    @property
    def _opened_table(self) -> ClipTable:
        if self._table is None:
            self._table = ClipTable(self._table_path)
        return self._table

    def _shard(self, number: int) -> ShardReader:
        if number not in self._shards:
            if len(self._shards) == _MOST_OPEN:
                self._shards.pop(next(iter(self._shards)))
            self._shards[number] = ShardReader(self._paths.get(number) or self._find(number))
        return self._shards[number]

    def _find(self, number: int) -> Path:
        return find_shard(self._root_uri, self._infos[number], verify_checksum=self._verify)


def _shards_of(index: PreparedIndex, split: Split) -> tuple[dict[int, ShardInfo], slice]:
    """The shards of a split by their number, and its rows in the table."""
    numbers = {number: shard for number, shard in enumerate(index.shards) if shard.split == split}
    start = sum(shard.num_clips for shard in index.shards[: min(numbers, default=0)])
    return numbers, slice(start, start + sum(shard.num_clips for shard in numbers.values()))


def _read_frames(clip: pa.RecordBatch, keep_candidates: bool) -> tuple[NDArray[np.uint8], int]:
    """The frames of a clip, (num_frames, height, width, 3), and how many of them stand around each sampled moment."""
    candidates = clip["frame_candidates"][0].as_py()
    chosen = slice(None)
    if candidates > 1 and not keep_candidates:
        chosen, candidates = slice(sampled_candidate(candidates), None, candidates), 1
    encoded = memoryview(clip["frames"][0].as_buffer()).cast("B")
    sizes = clip["jpeg_sizes"][0].values.to_numpy()
    return decode_frames(encoded, sizes, clip["shape"][0].as_py(), chosen), candidates


def _read_clip(clip: pa.RecordBatch, frames: NDArray[np.uint8], candidates: int) -> PreparedClip:
    return PreparedClip(
        clip_id=clip["clip_id"][0].as_py(),
        video=clip["video"][0].as_py(),
        label=clip["label"][0].as_py(),
        frames=frames,
        input_ids=_integers(clip["input_ids"][0]),
        mm_token_type_ids=_integers(clip["mm_token_type_ids"][0]),
        seconds_per_frame=clip["seconds_per_frame"][0].as_py(),
        frame_candidates=candidates,
        answer_ids=_integers(clip["answer_ids"][0]),
        answer_start=clip["answer_start"][0].as_py(),
    )


def _integers(values: Any) -> NDArray[np.int64]:
    numbers: NDArray[np.int64] = values.values.to_numpy().copy()
    return numbers
