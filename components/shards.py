"""Shards of prepared clips: Arrow stream files, read memory-mapped. `datasets.Dataset.from_file` opens them too.

Frames are raw bytes and a shape: `datasets`' Array4D would bring them back as int64. Imports no torch.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from components import storage
from components.artifacts import SPLITS, ShardInfo, Split

CLIPS_PER_SHARD = 256
NO_ANSWER: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("video", pa.string()),
        ("label", pa.int64()),
        ("frames", pa.large_binary()),
        ("shape", pa.list_(pa.int32(), 4)),
        ("input_ids", pa.list_(pa.int64())),
        ("mm_token_type_ids", pa.list_(pa.int64())),
        ("seconds_per_frame", pa.float64()),
        ("frame_candidates", pa.int64()),
        ("answer_ids", pa.list_(pa.int64())),
        ("answer_start", pa.int64()),
        ("backend", pa.string()),
    ]
)


class ShardError(ValueError):
    """A shard that is missing or not what the index says."""


def encode_clip(
    *,
    clip_id: str,
    video: str,
    label: int,
    frames: NDArray[np.uint8],
    input_ids: NDArray[np.int64],
    mm_token_type_ids: NDArray[np.int64],
    seconds_per_frame: float | None = None,
    frame_candidates: int = 1,
    answer_ids: NDArray[np.int64] = NO_ANSWER,
    answer_start: int = 0,
    backend: str | None = None,
) -> pa.RecordBatch:
    """One clip as it stands in a shard: `frames` is (num_frames * frame_candidates, height, width, 3), the candidates
    of a moment together; the ids are (num_tokens,), the answer's from `answer_start` on to be learned.

    `backend` is what decoded the frames.
    """
    columns: Sequence[Any] = (
        [clip_id],
        [video],
        [label],
        [frames.tobytes()],
        [list(frames.shape)],
        [input_ids],
        [mm_token_type_ids],
        [seconds_per_frame],
        [frame_candidates],
        [answer_ids],
        [answer_start],
        [backend],
    )
    arrays = [pa.array(column, type=field.type) for column, field in zip(columns, SCHEMA, strict=True)]
    return pa.record_batch(arrays, schema=SCHEMA)


def sampled_candidate(count: int) -> int:
    """Which of the `count` stored frames around a moment is the sampled one."""
    return (count - 1) // 2


def open_shard(path: Path) -> pa.Table:
    """The clips of a shard, memory-mapped: nothing is read before it is used."""
    with pa.ipc.open_stream(pa.memory_map(str(path))) as reader:
        return reader.read_all()


class ShardReader:
    """Single clips of a shard, memory-mapped.

    Keeps a few bytes per clip: a whole table keeps kilobytes of objects for each, which adds up over 100,000 clips
    and every worker process.
    """

    def __init__(self, path: Path) -> None:
        self._file = pa.memory_map(str(path))
        self._schema = pa.ipc.read_schema(pa.ipc.read_message(self._file))
        self._offsets = array("q", self._find_clips())

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, row: int) -> pa.RecordBatch:
        """One clip: columns of one row, whose bytes lie in the file."""
        self._file.seek(self._offsets[row])
        return pa.ipc.read_record_batch(pa.ipc.read_message(self._file), self._schema)

    def _find_clips(self) -> Iterator[int]:
        """Where each clip's record begins: `ShardWriter` writes one for each."""
        while True:
            offset = self._file.tell()
            try:
                pa.ipc.read_message(self._file)
            except EOFError:
                return
            yield offset


def find_shard(root_uri: str, shard: ShardInfo, *, verify_checksum: bool = False) -> Path:
    """The local file of a shard, downloaded where it has to be.

    Raises:
        ShardError: it is missing or not what the index says.
    """
    uri = storage.join(root_uri, shard.file)
    try:
        path = storage.local_path(uri)
    except FileNotFoundError as error:
        raise ShardError(f"shard {uri} is missing: run the preparation step again") from error
    num_bytes = path.stat().st_size
    if num_bytes != shard.num_bytes or (verify_checksum and _checksum(path) != shard.sha256):
        found = f"{num_bytes} bytes" if num_bytes != shard.num_bytes else "another checksum"
        raise ShardError(
            f"shard {uri} has {found}, the index says {shard.num_bytes} bytes, sha256 {shard.sha256[:12]}: it was cut "
            f"off or replaced. Delete {root_uri} and run the preparation step again"
        )
    return path


class ShardWriter:
    """Writes clips to the shards of their splits, in the order of `add`; the same clips give the same bytes."""

    def __init__(self, folder: Path, *, clips_per_shard: int = CLIPS_PER_SHARD) -> None:
        self._writers = {split: _SplitWriter(folder, split, clips_per_shard) for split in SPLITS}

    def add(self, split: Split, clip: pa.RecordBatch) -> None:
        """Writes one clip that `encode_clip` made."""
        self._writers[split].add(clip)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for writer in self._writers.values():
            writer.close()

    @property
    def shards(self) -> tuple[ShardInfo, ...]:
        """What was written, once the writer is closed."""
        return tuple(shard for writer in self._writers.values() for shard in writer.shards)


class _SplitWriter:
    def __init__(self, folder: Path, split: Split, clips_per_shard: int) -> None:
        self.shards: list[ShardInfo] = []
        self._folder, self._split, self._clips_per_shard = folder, split, clips_per_shard
        self._stream: Any = None
        self._num_clips = 0

    @property
    def _name(self) -> str:
        return f"{self._split}-{len(self.shards):05d}.arrow"

    def add(self, clip: pa.RecordBatch) -> None:
        if self._stream is None:
            self._stream = pa.ipc.new_stream(str(self._folder / f"{self._name}.partial"), SCHEMA)
        self._stream.write_batch(clip)
        self._num_clips += 1
        if self._num_clips == self._clips_per_shard:
            self.close()

    def close(self) -> None:
        if self._stream is None:
            return
        self._stream.close()
        path = self._folder / self._name
        (self._folder / f"{self._name}.partial").replace(path)
        self.shards.append(
            ShardInfo(
                file=self._name,
                split=self._split,
                num_clips=self._num_clips,
                num_bytes=path.stat().st_size,
                sha256=_checksum(path),
            )
        )
        self._stream, self._num_clips = None, 0


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
