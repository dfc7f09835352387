"""Makes one index of all shards of a run, from their receipts."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ivcp.data.cutoff import MOST_NAMED, explain_too_long
from ivcp.data.prepared.table import MORE_CONTENTS, SHORT_SIDE, list_column
from ivcp.preparation.plan import Plan, frequent_prompts
from ivcp.preparation.publish import Receipt, ShardFolder
from ivcp.records import SPLITS, Labels, Message, QuarantinedClip, ShardInfo, Split
from ivcp.stages.protocol import Stage

_PARALLEL_READS, _RECEIPTS_AT_ONCE = 16, 64
_MOST_PROMPTS = 16


class IncompleteError(RuntimeError):
    """Shards of a run are missing: a part has not run."""


@dataclass(frozen=True)
class Merged:
    """What the receipts of a run say, with one entry for each prepared clip, in the order of the table."""

    plan: Plan
    rows: NDArray[np.int64]
    """Their places in the plan."""
    offsets: NDArray[np.int64]
    num_tokens: NDArray[np.int32]
    num_prompt_tokens: NDArray[np.int32]
    shards: tuple[ShardInfo, ...]
    failed: tuple[QuarantinedClip, ...]

    def columns(self) -> dict[str, Any]:
        """The columns of the run's table."""
        identities = self.plan.identities[self.rows]
        return {
            "sample_id": self.plan.clip_ids.take(pa.array(self.rows)),
            "num_tokens": self.num_tokens,
            "num_prompt_tokens": self.num_prompt_tokens,
            "offset": self.offsets,
            "key": self.plan.keys[self.rows],
            "content": identities.contents,
            "group": identities.groups,
            SHORT_SIDE: self.plan.short_sides[self.rows],
            MORE_CONTENTS: list_column(identities.more_of, identities.more, num_rows=len(identities)),
            **{name: values[self.rows] for name, values in self.plan.values.items()},
        }

    def label_counts(self, labels: Labels | None) -> dict[Split, tuple[int, ...]]:
        """Clips of each label, by split; none where the stage asks for no label."""
        if labels is None or labels.kind == "value":
            return {} if labels is None else {split: (self._num_clips(split),) for split in SPLITS}
        if labels.kind != "class":
            return {split: self._list_counts(split, labels) for split in SPLITS}
        if "label" not in self.plan.values:
            return {}
        ends = np.cumsum([0, *(self._num_clips(split) for split in SPLITS)])
        return {
            split: tuple(
                np.bincount(self.plan.values["label"][self.rows[start:stop]], minlength=labels.num_classes).tolist()
            )
            for split, start, stop in zip(SPLITS, ends, ends[1:], strict=False)
        }

    def _list_counts(self, split: Split, labels: Labels) -> tuple[int, ...]:
        """Clips with each of several classes: those that were planned, less those that failed."""
        counts = Counter(self.plan.lists[split])
        for clip in self.failed:
            if clip.split == split:
                counts.subtract(enumerate(clip.labels or ()))
        starts = [outputs.start for outputs in labels.outputs_of_heads]
        found = Counter[int]()
        for (place, label), number in counts.items():
            found[label + (starts[place] if starts else 0)] += number
        return tuple(found[label] for label in range(labels.num_classes))

    def num_clips(self) -> dict[Split, int]:
        """Prepared clips of each split."""
        return {split: self._num_clips(split) for split in SPLITS}

    def _num_clips(self, split: Split) -> int:
        return sum(shard.num_clips for shard in self.shards if shard.split == split)

    def prompts(self, stage: Stage) -> tuple[tuple[Message, ...], ...]:
        """The prompts that most training clips have, the most frequent first.

        Raises:
            ValueError: there is no training clip.
        """
        usable = np.zeros(len(self.plan), dtype=bool)
        usable[self.rows] = True
        clips = frequent_prompts(self.plan, usable, most=_MOST_PROMPTS)
        if not clips:
            raise ValueError("no training clip could be prepared: the log says what is wrong with each")
        return tuple(stage.prompt_of(clip.messages) for clip in clips)

    def check_lengths(self, cutoff_len: int, *, with_answers: bool) -> None:
        """Checks that every clip fits, with its answer where that is learned.

        Raises:
            TooLongError: some do not.
        """
        lengths = self.num_tokens if with_answers else self.num_prompt_tokens
        too_long = np.flatnonzero(lengths > cutoff_len)
        if not len(too_long):
            return
        # In the order of the annotations, in which users look for them.
        too_long = too_long[np.argsort(self.plan.places[self.rows[too_long]])]
        named = []
        for place in too_long[:MOST_NAMED].tolist():
            row = int(self.rows[place])
            clip = next(self.plan.read(slice(row, row + 1)))
            named.append((clip.dataset, clip.row, int(lengths[place])))
        raise explain_too_long(
            named,
            num_too_long=len(too_long),
            num_rows=len(self.plan),
            longest=int(lengths.max()),
            cutoff_len=cutoff_len,
        )


@dataclass
class _Collected:
    """Arrays of the receipts read so far."""

    rows: list[NDArray[np.int64]] = field(default_factory=list)
    offsets: list[NDArray[np.int64]] = field(default_factory=list)
    num_tokens: list[NDArray[np.int32]] = field(default_factory=list)
    num_prompt_tokens: list[NDArray[np.int32]] = field(default_factory=list)
    shards: list[ShardInfo] = field(default_factory=list)
    failed: list[QuarantinedClip] = field(default_factory=list)


def merge_receipts(plan: Plan, folder: ShardFolder) -> Merged:
    """Reads the receipts of all planned shards.

    Raises:
        IncompleteError: some are missing.
    """
    sizes = folder.sizes()
    missing = [shard.name for shard in plan.shards if f"{shard.name}.json" not in sizes]
    if missing:
        raise IncompleteError(
            f"{len(missing)} of {len(plan.shards)} shards are not in {folder.root_uri} (the first is {missing[0]}): "
            "a part of the preparation has not run to its end. Run it again; finished shards are kept"
        )
    collected = _Collected()
    with ThreadPoolExecutor(_PARALLEL_READS) as pool:
        for start in range(0, len(plan.shards), _RECEIPTS_AT_ONCE):  # a few in memory
            some = plan.shards[start : start + _RECEIPTS_AT_ONCE]
            for planned, receipt in zip(some, pool.map(folder.receipt, some), strict=True):
                _collect(collected, receipt, receipt.rows(planned))
    return Merged(
        plan=plan,
        rows=_joined(collected.rows, np.int64),
        offsets=_joined(collected.offsets, np.int64),
        num_tokens=_joined(collected.num_tokens, np.int32),
        num_prompt_tokens=_joined(collected.num_prompt_tokens, np.int32),
        shards=tuple(collected.shards),
        failed=tuple(collected.failed),
    )


def _collect(collected: _Collected, receipt: Receipt, rows: NDArray[np.int64]) -> None:
    collected.failed += [clip.quarantined for clip in receipt.failed]
    if receipt.shard is None:
        return
    collected.shards.append(receipt.shard)
    collected.rows.append(rows)
    collected.offsets.append(np.array(receipt.offsets, dtype=np.int64))
    collected.num_tokens.append(np.array(receipt.num_tokens, dtype=np.int32))
    collected.num_prompt_tokens.append(np.array(receipt.num_prompt_tokens, dtype=np.int32))


def _joined(arrays: list[NDArray[Any]], dtype: Any) -> NDArray[Any]:
    joined = np.concatenate([*arrays, np.zeros(0, dtype=dtype)])
    arrays.clear()  # not all of them twice in memory
    return joined
