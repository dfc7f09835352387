"""Which clip goes to which shard: decided from the annotations alone, so that all parts of a run decide the same.

A shard is named after the clips it holds. Where one ends is decided by the clips around, not by counting from the
start: a clip that is added or removed changes the shard it is in, and the others stay as they are.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ivcp.data.prepared.sample import Column
from ivcp.data.prepared.table import KEY_BYTES
from ivcp.data.seen_clips import ClipIdentities, identity_of_content, identity_of_group
from ivcp.preparation.fingerprint import clip_key, record_key
from ivcp.records import SPLITS, Clip, Split, first_path
from ivcp.stages.protocol import Stage

CLIPS_PER_SHARD = 256
"""On average: a shard ends where a clip's hash says so, between half of this number and one and a half of it."""
_IDS_AT_ONCE = 4096


@dataclass(frozen=True)
class PlannedShard:
    """Clips of one split that are written to one file."""

    name: str
    """Without its ending."""
    split: Split
    rows: slice
    """In the plan."""

    def __len__(self) -> int:
        return int(self.rows.stop - self.rows.start)


@dataclass(frozen=True)
class Plan:
    """All clips of a run, in the order in which they stand in shards: about a hundred bytes for each.

    Training clips come first, then validation, then test; the clips of the same videos are side by side.
    """

    annotations: Path
    places: NDArray[np.int64]
    """Where each clip's line begins in the annotations, (clips,)."""
    keys: NDArray[Any]
    """`clip_key` of each, (clips,)."""
    records: NDArray[Any]
    """`record_key` of each, (clips,)."""
    values: dict[str, NDArray[Any]]
    """The numbers that the stage asks for, by column, (clips,)."""
    lists: dict[Split, Counter[tuple[int, int]]]
    """Clips with each of several classes, by split: by its place in a clip's list, and the class."""
    prompts: NDArray[np.int64]
    """Hash of the part of the conversation that the model is asked with, (clips,)."""
    identities: ClipIdentities
    """What each is known by to models that see it."""
    short_sides: NDArray[np.int32]
    """`Clip.short_side` of each, (clips,); 0 where it is not known."""
    media: tuple[str, ...]
    """As `PreparedIndex.media`."""
    clip_ids: pa.Array
    shards: tuple[PlannedShard, ...]

    def __len__(self) -> int:
        return len(self.places)

    def read(self, rows: slice) -> Iterator[Clip]:
        """The clips of some rows, from the annotations."""
        with self.annotations.open("rb") as file:
            for place in self.places[rows].tolist():
                file.seek(place)
                yield Clip.model_validate_json(file.readline())

    def part(self, number: int, num_parts: int) -> tuple[PlannedShard, ...]:
        """The shards of one of the parts that a run is divided into."""
        return self.shards[number::num_parts]


class _Columns:
    """What the plan keeps of each row of the annotations, in their order."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.places, self.splits = array("q"), array("b")
        self.values = {column.name: array(_typecode(column)) for column in stage.columns if column.is_number}
        self.videos, self.prompts = array("q"), array("q")
        self.contents, self.groups = array("Q"), array("Q")
        self.more_of, self.more = array("q"), array("Q")
        self.keys, self.records = bytearray(), bytearray()
        self.short_sides = array("i")
        self.media: set[str] = set()
        self.lists: dict[Split, Counter[tuple[int, int]]] = {split: Counter() for split in SPLITS}
        self._ids: list[str] = []
        self._id_chunks: list[pa.Array] = []

    def add(self, clip: Clip, place: int, *, key: bytes) -> None:
        for medium in clip.media[1:]:
            self.more_of.append(len(self.places))
            self.more.append(identity_of_content(medium.video_sha256))
        self.places.append(place)
        self.splits.append(SPLITS.index(clip.split))
        values = self.stage.values(clip)
        for name, column in self.values.items():
            column.append(values[name])
        if clip.labels is not None:
            self.lists[clip.split].update(enumerate(clip.labels))
        self.videos.append(_hash64("\n".join(first_path(video.video) for video in clip.media)))
        self.media.add("+".join(sorted({medium.kind for medium in clip.media})) or "none")
        prompt = self.stage.prompt_of(clip.messages)
        self.prompts.append(_hash64(repr([(message.role, message.content) for message in prompt])))
        self.contents.append(identity_of_content(clip.video_sha256))
        self.groups.append(identity_of_group(clip.group))
        self.keys += key
        self.records += record_key(clip, key, values)
        self.short_sides.append(clip.short_side or 0)
        self._ids.append(clip.clip_id)
        if len(self._ids) == _IDS_AT_ONCE:
            self.close_chunk()

    def close_chunk(self) -> None:
        self._id_chunks.append(pa.array(self._ids, type=pa.large_string()))
        self._ids = []

    def take(self, name: str, dtype: Any) -> NDArray[Any]:
        """A column as an array; it is not kept, so that not all of them lie in memory twice."""
        return np.frombuffer(self.__dict__.pop(name), dtype=dtype)

    def identities(self) -> ClipIdentities:
        contents, groups, more = (self.take(name, np.uint64) for name in ("contents", "groups", "more"))
        return ClipIdentities(contents, groups, self.take("more_of", np.int64), more)

    def clip_ids(self, order: NDArray[np.int64]) -> pa.Array:
        self.close_chunk()
        chunks, self._id_chunks = self._id_chunks, []
        return pa.concat_arrays(chunks).take(pa.array(order))


def plan_shards(
    annotations: Path,
    *,
    stage: Stage,
    candidates: Mapping[Split, int],
    data_fingerprint: str,
    clips_per_shard: int | None = None,
) -> Plan:
    """Reads the annotations once, line by line, and decides.

    Args:
        annotations: what validation wrote.
        stage: which values it asks of each row, and which part of a conversation is the prompt.
        candidates: frames that are stored around each sampled moment, by split.
        data_fingerprint: validation's, for videos that have no hash of their own.
        clips_per_shard: null is `CLIPS_PER_SHARD`.
    """
    columns, place = _Columns(stage), 0
    with annotations.open("rb") as file:
        for line in file:
            if line.strip():
                clip = Clip.model_validate_json(line)
                key = clip_key(clip, candidates=candidates[clip.split], data_fingerprint=data_fingerprint)
                columns.add(clip, place, key=key)
            place += len(line)
    splits = columns.take("splits", np.int8)
    order = _videos_together(splits, columns.take("videos", np.int64))
    keys = columns.take("keys", f"S{KEY_BYTES}")[order]
    records = columns.take("records", f"S{KEY_BYTES}")[order]
    return Plan(
        annotations=annotations,
        places=columns.take("places", np.int64)[order],
        keys=keys,
        records=records,
        values={name: np.frombuffer(column, dtype=column.typecode)[order] for name, column in columns.values.items()},
        lists=columns.lists,
        prompts=columns.take("prompts", np.int64)[order],
        identities=columns.identities()[order],
        short_sides=columns.take("short_sides", np.int32)[order],
        media=() if columns.media == {"video"} else tuple(sorted(columns.media)),
        clip_ids=columns.clip_ids(order),
        shards=tuple(_cut_shards(splits[order], keys, records, clips_per_shard or CLIPS_PER_SHARD)),
    )


def name_shard(split: Split, records: NDArray[Any]) -> str:
    """The name of a shard with these `record_key`s, in order."""
    return f"{split}-{hashlib.sha256(records.tobytes()).hexdigest()[:16]}"


def _videos_together(splits: NDArray[np.int8], videos: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions by split, then by the first row of their video in it, then as they come."""
    if not len(videos):
        return np.zeros(0, dtype=np.int64)
    by_video = np.lexsort((videos, splits))  # stable: rows of one video stay in their order
    videos, sorted_splits = videos[by_video], splits[by_video]
    is_start = np.append(True, (videos[1:] != videos[:-1]) | (sorted_splits[1:] != sorted_splits[:-1]))
    starts = np.flatnonzero(is_start)
    first_rows = np.empty(len(videos), dtype=np.int64)
    first_rows[by_video] = np.repeat(by_video[starts], np.diff(starts, append=len(videos)))
    return np.lexsort((first_rows, splits))


def _cut_shards(
    splits: NDArray[np.int8], keys: NDArray[Any], records: NDArray[Any], clips_per_shard: int
) -> Iterator[PlannedShard]:
    fewest, most = max(1, clips_per_shard // 2), max(1, 3 * clips_per_shard // 2)
    hashes = np.frombuffer(keys.tobytes(), dtype=np.uint64)[:: KEY_BYTES // 8]
    may_end = hashes % np.uint64(max(1, clips_per_shard - fewest)) == 0
    may_end[:-1] |= np.diff(splits) != 0
    start = 0
    while start < len(keys):
        split_end = int(np.searchsorted(splits, splits[start], side="right"))
        ends = np.flatnonzero(may_end[start + fewest - 1 : min(start + most, split_end)])
        stop = min(start + fewest + int(ends[0]) if len(ends) else start + most, split_end)
        split = SPLITS[splits[start]]
        yield PlannedShard(name_shard(split, records[start:stop]), split, slice(start, stop))
        start = stop


def frequent_prompts(plan: Plan, usable: NDArray[np.bool_], *, most: int) -> list[Clip]:
    """For each of the most frequent prompts of usable training clips the first that has it, the most frequent first."""
    last = max((shard.rows.stop for shard in plan.shards if shard.split == "train"), default=0)
    rows = np.flatnonzero(usable[:last])
    _, firsts, counts = np.unique(plan.prompts[rows], return_index=True, return_counts=True)
    order = np.lexsort((firsts, -counts))[:most]
    return [next(plan.read(slice(row, row + 1))) for row in rows[firsts[order]].tolist()]


def _typecode(column: Column) -> str:
    """The one of `array` for a column of numbers."""
    return str(np.dtype(column.type.to_pandas_dtype()).char)


def _hash64(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)
