"""The prepared clips of one split as a torch data set."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from torch.utils.data import Dataset

from components.artifacts import PreparedIndex, Split
from components.clip_processor import PreparedClip
from components.shards import ShardReader, find_shard, open_shard, sampled_candidate

_MOST_OPEN = 512
"""Shards that are open at once: each takes a file descriptor, of which a process has 1,024 by default."""
_NO_FRAMES = np.zeros((0, 0, 0, 3), dtype=np.uint8)


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
        self._with_frames = True
        self._shards: dict[int, ShardReader] = {}

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> PreparedClip:
        if not -len(self) <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)} in split {self.split}")
        index %= len(self)
        shard = int(np.searchsorted(self._starts, index, side="right")) - 1
        clip = self._shard(shard)[index - int(self._starts[shard])]
        frames, candidates = _read_frames(clip, self._keep_candidates) if self._with_frames else (_NO_FRAMES, 1)
        return _read_clip(clip, frames, candidates)

    def without_frames(self) -> PreparedClips:
        """The same clips with no frames, (0, 0, 0, 3), whose bytes are then never read."""
        light = copy(self)
        light._with_frames = False
        return light

    def token_lengths(self, *, with_answers: bool = False) -> NDArray[np.int64]:
        """Tokens of each clip, (len(self),), up to the action token or up to the answer's end, read from columns."""
        lengths = self._column("input_ids", pc.list_value_length)
        return lengths + self._column("answer_ids", pc.list_value_length) if with_answers else lengths

    def labels(self) -> NDArray[np.int64]:
        """The label of each clip, (len(self),), read from one column."""
        return self._column("label", lambda column: column)

    def _column(self, name: str, measure: Callable[[Any], Any]) -> NDArray[np.int64]:
        columns = [measure(open_shard(path)[name]).to_numpy() for path in self._paths]  # not kept open
        return np.concatenate(columns).astype(np.int64) if columns else np.zeros(0, dtype=np.int64)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_shards": {}}

    def _shard(self, number: int) -> ShardReader:
        if number not in self._shards:
            if len(self._shards) == _MOST_OPEN:
                self._shards.pop(next(iter(self._shards)))
            self._shards[number] = ShardReader(self._paths[number])
        return self._shards[number]


def _read_frames(clip: pa.RecordBatch, keep_candidates: bool) -> tuple[NDArray[np.uint8], int]:
    """The frames of a clip, (num_frames, height, width, 3), and how many of them stand around each sampled moment."""
    frames = np.frombuffer(clip["frames"][0].as_buffer(), dtype=np.uint8).reshape(clip["shape"][0].as_py())
    candidates = clip["frame_candidates"][0].as_py()
    if candidates > 1 and not keep_candidates:
        frames, candidates = frames[sampled_candidate(candidates) :: candidates], 1
    return frames.copy(), candidates  # torch refuses read-only memory


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
