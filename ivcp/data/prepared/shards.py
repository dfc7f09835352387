"""Shards of prepared clips: Arrow stream files, read memory-mapped. `datasets.Dataset.from_file` opens them too.

Each clip is a record of its own. Frames are bytes and a shape: `datasets`' Array4D would bring them back as int64.
`ivcp.data.prepared.table` says where a clip's record begins. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ivcp import storage
from ivcp.data.prepared.frame_encoding import encode_frames
from ivcp.records import ShardInfo, Split
from ivcp.storage.atomic import AtomicFile, checksum

NO_ANSWER: NDArray[np.int64] = np.zeros(0, dtype=np.int64)


SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("video", pa.string()),
        ("label", pa.int64()),
        ("frames", pa.large_binary()),
        ("jpeg_sizes", pa.list_(pa.int32())),
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


_END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"


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
    jpeg_quality: int | None = None,
) -> pa.RecordBatch:
    """One clip as it stands in a shard: `frames` is (num_frames * frame_candidates, height, width, 3), the candidates
    of a moment together; the ids are (num_tokens,), the answer's from `answer_start` on to be learned.

    Frames are kept as JPEG images of `jpeg_quality`; null keeps their pixels.
    """
    encoded, jpeg_sizes = encode_frames(frames, jpeg_quality)
    columns: Sequence[Any] = (
        [clip_id],
        [video],
        [label],
        [encoded],
        [jpeg_sizes],
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


def relabel_clip(record: pa.RecordBatch, *, clip_id: str, video: str, label: int) -> pa.RecordBatch:
    """The same frames and tokens as another row of the annotations; nothing is decoded."""
    changed = {"clip_id": clip_id, "video": video, "label": label}
    columns = [
        pa.array([changed[field.name]], type=field.type) if field.name in changed else record[field.name]
        for field in SCHEMA
    ]
    return pa.record_batch(columns, schema=SCHEMA)


def count_tokens(record: pa.RecordBatch) -> tuple[int, int]:
    """Tokens of a clip up to the action token, and behind it."""
    return len(record["input_ids"][0]), len(record["answer_ids"][0])


class ShardReader:
    """Single clips of a shard, memory-mapped: nothing is read before it is used, and nothing is kept in memory."""

    def __init__(self, path: Path) -> None:
        self._file = pa.memory_map(str(path))

    def read(self, offset: int) -> pa.RecordBatch:
        """The clip whose record begins at `offset`: columns of one row, whose bytes lie in the file."""
        self._file.seek(offset)
        return pa.ipc.read_record_batch(pa.ipc.read_message(self._file), SCHEMA)


def find_shard(root_uri: str, shard: ShardInfo, *, verify_checksum: bool = False) -> Path:
    """The local file of a shard, downloaded where it has to be.

    Raises:
        ShardError: it is missing or not what the index says.
    """
    return find_file(root_uri, shard.file, shard.num_bytes, shard.sha256 if verify_checksum else None)


def find_file(root_uri: str, name: str, num_bytes: int, sha256: str | None) -> Path:
    """The local path of a file below `root_uri`, downloaded where it has to be; `sha256` is checked where given.

    Raises:
        ShardError: it is missing or has another size or checksum.
    """
    uri = storage.join(root_uri, name)
    try:
        path = storage.local_path(uri)
    except FileNotFoundError as error:
        raise ShardError(f"{uri} is missing: run the preparation step again") from error
    found_bytes = path.stat().st_size
    if found_bytes != num_bytes or (sha256 is not None and checksum(path) != sha256):
        found = f"{found_bytes} bytes" if found_bytes != num_bytes else "another checksum"
        raise ShardError(
            f"{uri} has {found}, the index says {num_bytes} bytes{f', sha256 {sha256[:12]}' if sha256 else ''}: "
            f"it was cut off or replaced. Delete it and run the preparation step again"
        )
    return path


class ShardFile:
    """One shard while it is written, in the order of `add`; the same clips give the same bytes.

    Without clips there is no file.
    """

    def __init__(self, path: Path, split: Split) -> None:
        self.offsets: list[int] = []
        """Where the record of each clip begins."""
        self._split, self._file = split, AtomicFile(path)

    def add(self, clip: pa.RecordBatch) -> None:
        """Writes one clip that `encode_clip` made."""
        if not self.offsets:
            self._file.write(SCHEMA.serialize())
        self.offsets.append(self._file.num_bytes)
        self._file.write(clip.serialize())

    def rename(self, name: str) -> None:
        """Gives the file another name than it was begun with."""
        self._file.path = self._file.path.with_name(name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and self.offsets:
            self._file.write(_END_OF_STREAM)
        self._file.__exit__(kind, error, trace)

    @property
    def path(self) -> Path:
        """Where the file is, once the block is left."""
        return self._file.path

    @property
    def info(self) -> ShardInfo:
        """What was written, once the block is left."""
        return ShardInfo(
            file=self.path.name,
            split=self._split,
            num_clips=len(self.offsets),
            num_bytes=self._file.num_bytes,
            sha256=self._file.sha256,
        )
