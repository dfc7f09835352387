"""Which group was given to which split: the lines of `group_splits.jsonl`, which later runs read beside the data."""

from __future__ import annotations

from ivcp.records.annotations import Split
from ivcp.records.record import Record, VersionedRecord

SPLITS_FILE = "group_splits.jsonl"


class SplitsHeader(VersionedRecord):
    """Its first line."""

    resplits: int = 0
    """How often a group that had a split was given another one."""


class GroupSplit(Record):
    """One line for each group."""

    group: str
    split: Split
    contents: tuple[str, ...] = ()
    """The first 16 digits of the sha256 of its videos: a video keeps its split though its group gets another name."""
